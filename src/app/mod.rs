//! The application as a library: a command is a function from a request to a report.
//!
//! A request is plain data: paths, limits, loaded keys, and how to connect to registries ([`RegistryOptions`]). The inputs
//! from the process are in an [`Environment`]. A command reports events while it works, and returns facts in its report.
//! Nothing here prints, asks a terminal or ends the process. The JSON of a command is its report, which always has
//! `version` and `ok`. An error means that the command has no result.
//!
//! Only this room joins transports with stages.

mod auth;
mod check;
mod convert;
mod environment;
mod export;
mod failure;
mod fingerprint;
mod hint;
mod import;
mod inspect;
mod inventory;
mod list;
mod listed;
mod local;
mod lock;
mod login;
mod login_target;
mod logout;
mod migrate;
mod missing;
mod outcome;
mod output;
mod prove;
mod push;
mod read_back;
mod receipts;
mod registry;
mod repair;
mod resolve;
mod serve;
mod sign;
mod signed;
mod since;
mod site_policy;
mod storage_problems;
mod stream;
mod trust;
mod units;
mod verify;

pub use auth::{AuthReport, AuthRequest, auth_check};
pub use check::{CheckReport, CheckRequest, check};
pub use convert::{ConvertReport, ConvertRequest, Converted, VolumesPlan, convert};
pub use environment::{Environment, NoPasswords, Passwords, Watch};
pub use export::{
    ExportPlan, ExportRepairRequest, ExportReport, ExportRequest, Exported, ExportedRepair, ExportedVolume,
    ExportedVolumes, Images, PlannedVolume, PlannedVolumes, ReadFrom, export, export_repair,
};
pub use failure::{ErrorDetail, ErrorReport};
pub use fingerprint::{FingerprintReport, FingerprintRequest, fingerprint};
pub use hint::{Hint, HintCode};
pub use import::{
    Arrived, BundleInput, ImportReport, ImportRequest, NamedAllowlist, NotAllowed, NotNewer, PruneOptions, PruneReport,
    Pruned, import,
};
pub use inspect::{
    InspectReport, InspectRequest, InspectedChild, InspectedContent, InspectedImage, RawPart, ShownCompanion, inspect,
    inspect_bytes,
};
pub use inventory::{InventoryFailure, InventoryReport, InventoryRequest, inventory};
pub use list::{ListReport, ListRequest, list};
pub use listed::ListedImage;
pub use local::{Input, Text, check_writable, read_bounded, write_file};
pub use lock::{LockReport, LockRequest, lock};
pub use login::{LoggingIn, LoginReport, LoginRequest, check_login, login};
pub use login_target::LoginTarget;
pub use logout::{LogoutReport, LogoutRequest, logout};
pub use migrate::{
    BundleOutput, Counted, Destination, ImageFilter, MigrateReport, MigrateRequest, Migrated, MigratedBundle,
    MigratedImage, MigratedState, MigrationRefused, StorageList, StoredImage, StoredName, StoredState, migrate,
};
pub use missing::missing_lines;
pub use outcome::{JsonReport, Outcome, REPORT_VERSION};
pub use output::{OneStreamSink, Output};
pub use prove::{Proof, ProveReport, ProveRequest, prove, state_beside};
pub use push::{
    HarborOptions, ImageFailure, LeftOut, NameOptions, Names, NotBrought, PlannedAction, PlannedCompanion,
    PlannedImage, PlannedTag, PushOptions, PushPlan, PushReport, Pushed, SPARSE_REMEDY,
};
pub use receipts::{NamedReceipt, ReceiptFile, ReceiptProblem, Signature, read_receipt};
pub use registry::{GivenCredentials, RegistryOptions};
pub use repair::{RecoveredVolumes, RepairReport, RepairRequest, RepairedBundle, RepairedVolumes, VolumePath, repair};
pub use resolve::{ResolveOptions, lock_in_bundle};
pub use serve::{ServeReport, ServeRequest, ServedContent, Serving, serve};
pub use sign::{SignReport, SignRequest, sign};
pub use since::{basis_line, read_baseline};
pub use site_policy::SitePolicy;
pub use storage_problems::{problem_line, problem_lines, problems_line};
pub use stream::{BundleStream, StreamReader};
pub use trust::{Trust, demand, public_key};
pub use units::as_path;
pub use verify::{VerifyInput, VerifyReport, VerifyRequest, verify};

/// The name of this program in documents.
pub const TOOL: &str = concat!("gapferry ", env!("CARGO_PKG_VERSION"));
