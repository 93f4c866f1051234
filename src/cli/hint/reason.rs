//! The hint for each reason that the other side gives.

use crate::app::HintCode;
use crate::base::error::Reason;

/// Returns `None` if the reason alone suggests no remedy.
pub fn for_reason(reason: &Reason) -> Option<HintCode> {
    Some(match reason {
        Reason::UnknownContent(_) => return None,
        Reason::PlatformMissing => HintCode::PlatformMissing,
        Reason::UnknownRepository => HintCode::UnknownRepository,
        Reason::ForeignLayer => HintCode::ForeignLayerRefused,
        Reason::DamagedTarget => HintCode::DamagedTarget,
        Reason::Passed => HintCode::Passed,
        Reason::Quota { .. } => HintCode::ProjectQuota,
        Reason::Full { .. } => HintCode::TargetFull,
        Reason::NoPushes => HintCode::NoPushes,
        Reason::WebPage => HintCode::WebPageAtUpload,
        Reason::UnknownUploadHost => HintCode::UnknownUploadHost,
        Reason::ProxyCache => HintCode::ProxyCache,
        Reason::NoPushRight => HintCode::NoPushRight,
        Reason::UploadDenied => HintCode::UploadDenied,
        Reason::ImmutableTag => HintCode::ImmutableTag,
        Reason::BlobInCollection => HintCode::BlobInCollection,
        Reason::BodyLimit => HintCode::BodyLimit,
        Reason::ReadOnly => HintCode::RegistryReadOnly,
        Reason::DamagedFile => HintCode::DamagedFile,
        Reason::Undelivered => HintCode::Undelivered,
        Reason::Compressed => HintCode::Compressed,
        Reason::PullPolicy => HintCode::PullPolicy,
        Reason::NoPullRight => HintCode::NoPullRight,
    })
}
