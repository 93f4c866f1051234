//! The checks before a push to Harbor and the push itself, with the real client against a server that behaves like
//! Harbor. Also tests that server, because other tests rely on it.

mod preflight;
mod push;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gapferry::base::progress::Silent;
use gapferry::credentials::Credentials;
use gapferry::transport::registry::{Config, Registries, RegistryConfig};

use crate::support::harbor::{Account, Harbor as Server, Project, Right, Setup};

/// `name:password`, as on the command line; empty for anonymous.
type Creds = &'static str;

const NOBODY: Creds = "";
const ADMIN: Creds = "admin:Harbor12345";
/// Pushes to `base`, pulls from `apps`, nothing else.
const CI: Creds = "ci:Ci123456";
/// The same, as a robot: the project API is closed to it.
const ROBOT: Creds = "robot$base+ci:secret";
/// An OIDC user with a CLI secret, who pushes to `base`.
const OLGA: Creds = "olga:clisecret";

fn three_projects() -> Setup {
    let base = Project::new("base").member("ci", Right::Push).member("robot$base+ci", Right::Push);
    Setup::default()
        .account(Account::user("ci", "Ci123456"))
        .account(Account::robot("base+ci", "secret"))
        .account(Account::oidc("olga", "clisecret"))
        .with(base.member("olga", Right::Push))
        .with(Project::new("apps").member("ci", Right::Pull).member("robot$base+ci", Right::Pull))
        .with(Project::new("closed"))
}

/// The real client, logged in.
fn client(server: &Server, creds: Creds) -> Registries {
    let credentials = (!creds.is_empty()).then(|| Credentials::parse(creds).unwrap());
    let own = RegistryConfig { credentials, ..RegistryConfig::default() };
    let per_registry = BTreeMap::from([(server.registry(), own)]);
    let (first_delay, max_wait) = (Duration::from_millis(1), Duration::ZERO);
    let config = Config { first_delay, max_wait, per_registry, ..Config::default() };
    Registries::new(config, Arc::new(Silent)).unwrap()
}
