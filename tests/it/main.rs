//! All integration tests in one program, so that shared code is compiled and linked once.
//!
//! The tests are threads of one process. A test must not change process-wide state: environment, working directory,
//! limits. A test that needs that runs its own program, as `registry::tls` does.
//!
//! The process masks every password and token that any test gave to the library in all messages, so none of them may be
//! an ordinary word.

mod allowlist_properties;
mod bundle;
mod circles;
mod cli;
mod command_line;
mod convert;
mod credentials;
mod damage;
mod demo;
mod disk;
mod exit_codes;
mod export_output;
mod format_reader;
mod harbor;
mod import_again;
mod import_harbor;
mod import_target;
mod increments;
mod interrupted;
mod json;
mod json_docs;
mod library;
mod limits;
mod main_job;
mod metadata;
mod migrate_bundle;
mod migrate_dir;
mod migrate_in_use;
mod migrate_killed;
mod migrate_names;
mod migrate_push;
mod migrate_referrers;
mod migrate_report;
mod migrate_storage;
mod naming_properties;
mod own_signatures;
mod prose;
mod prove;
mod reads;
mod registry;
mod release;
mod rooms;
mod serve;
mod signed;
mod skopeo_yaml;
mod soak;
mod storage;
mod streams;
mod support;
mod test_support;
mod tools;
mod volumes;
