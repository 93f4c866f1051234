//! The number of tokens a command needs: each costs Harbor a password hash.

use super::fixture::{ADMIN, CI, ROBOT, bundle, import, map_file, setup, small};
use crate::support::harbor::{Harbor, Project, Right, Scopes, Setup};
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::{gapferry, tempdir};

/// 100 images in 60 repositories of 30 projects need only a handful of tokens.
#[test]
fn importing_a_hundred_images_takes_at_most_a_dozen_tokens() {
    let image = |n: usize| {
        let (repository, tag) = (format!("p{:02}/team/app{:02}", n % 30, n % 60), format!("{}", n / 60));
        // Each base layer first arrives in its own project and is mounted from there.
        images::oci(&repository, &tag, &["what all share", &format!("base {}", n % 20), &format!("{n}")])
    };
    let all: Vec<Image> = (0..100).map(image).collect();
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    for creds in [CI, ROBOT] {
        let member = |project: Project| project.member("ci", Right::Push).member("robot$base+ci", Right::Push);
        let projects = (0..30).map(|n| member(Project::new(&format!("p{n:02}"))));
        let server = Harbor::start(projects.fold(setup(), Setup::with));
        import(&bundle, &server, "", creds, &[]).ended(0);
        let tokens = server.token_requests();
        assert!(tokens <= 12, "{creds}: {tokens} tokens");
        assert_eq!(server.mounts(), 59 + 40, "shared blobs are still mounted into every other repository");
        server.clear_log();
        import(&bundle, &server, "", creds, &[]).ended(0);
        let tokens = server.token_requests();
        assert!(tokens <= 12, "{creds}, nothing to do: {tokens} tokens");
    }
}

/// An account that may only pull checks whether everything is present, so that it need not push. A token for each
/// repository would tell it nothing more.
#[test]
fn a_pull_only_accounts_check_takes_at_most_a_dozen_tokens() {
    let image = |n: usize| images::oci(&format!("p{:02}/team/app{n:02}", n % 5), "1", &[&format!("{n}")]);
    let all: Vec<Image> = (0..40).map(image).collect();
    let bundle = bundle(&all.iter().collect::<Vec<_>>());
    let projects = (0..5).map(|n| Project::new(&format!("p{n:02}")).member("robot$base+ci", Right::Pull));
    let server = Harbor::start(projects.fold(setup(), Setup::with));
    import(&bundle, &server, "", ADMIN, &[]).ended(0);
    server.clear_log();
    let look = import(&bundle, &server, "", ROBOT, &["--dry-run"]).ended(0);
    assert!(look.stdout.contains("p00/team/app00:1  present"), "{}", look.stdout);
    let tokens = server.token_requests();
    assert!(tokens <= 12, "{tokens} tokens");
}

/// Each request with a password costs Harbor a hash, and Harbor asks for the password whenever it refuses a token.
#[test]
fn an_account_without_rights_is_reported_after_few_password_requests() {
    let images: Vec<Image> = (0..30).map(|n| small(&format!("app{n}"))).collect();
    let bundle = bundle(&images.iter().collect::<Vec<_>>());
    let shut = setup().with(Project::new("shut"));
    let deliver = Project::new("deliver").member("ci", Right::Deliver);
    let server = Harbor::start(shut.with(deliver));
    let look = import(&bundle, &server, "/shut", CI, &["--dry-run", "--create-projects"]).ended(4);
    assert!(look.stdout.contains("this account has no right there: give it"), "{}", look.stdout);
    assert!(server.passwords() <= 12, "{} of {}", server.passwords(), server.log().len());
    server.clear_log();
    import(&bundle, &server, "/deliver", CI, &["--dry-run"]).ended(0);
    assert!(server.log().len() > 30 && server.passwords() <= 12, "{} of {}", server.passwords(), server.log().len());
}

/// An export from Harbor costs as few tokens as an import.
#[test]
fn exporting_a_hundred_images_takes_at_most_a_dozen_tokens() {
    let (server, references) = full(Scopes::Granted, 100);
    let directory = tempdir();
    for creds in [CI, ROBOT] {
        for command in ["lock", "export"] {
            server.clear_log();
            let out = directory.path().join(format!("{command}-{}.out", creds.len()));
            let mut read = gapferry();
            read.arg(command).args(&references).args(["--creds", creds, "-o"]).arg(&out);
            Ran::of(&mut read).ended(0);
            let tokens = server.token_requests();
            assert!(tokens <= 12, "{command} as {creds}: {tokens} tokens");
        }
    }
}

/// The same with a token server that is not Harbor's own: however it handles several repositories, all images are read.
#[test]
fn an_export_is_complete_if_the_token_server_grants_one_repository_at_a_time() {
    for several_scopes in [Scopes::First, Scopes::FirstOpaque, Scopes::Refused] {
        let (_server, references) = full(several_scopes, 8);
        let directory = tempdir();
        let mut export = gapferry();
        export.arg("export").args(&references).args(["--creds", ROBOT, "--retries", "1", "-o"]);
        Ran::of(export.arg(directory.path().join("out.tar"))).ended(0);
    }
}

/// This many images, 100 of them in 60 repositories of 30 projects, readable by everyone, and their names.
fn full(several_scopes: Scopes, number: usize) -> (Harbor, Vec<String>) {
    let image = |n: usize| {
        let (repository, tag) = (format!("p{:02}/team/app{:02}", n % 30, n % 60), format!("{}", n / 60));
        images::oci(&repository, &tag, &["what all share", &format!("{n}")])
    };
    let all: Vec<Image> = (0..number).map(image).collect();
    let member = |project: Project| project.member("ci", Right::Pull).member("robot$base+ci", Right::Pull);
    let projects = (0..30).map(|n| member(Project::new(&format!("p{n:02}"))));
    let setup = Setup { several_scopes, ..setup() };
    let server = Harbor::start(projects.fold(setup, Setup::with));
    import(&bundle(&all.iter().collect::<Vec<_>>()), &server, "", ADMIN, &[]).ended(0);
    let references = all.iter().map(|image| format!("{}/{}", server.registry(), image.name())).collect();
    (server, references)
}

/// A gateway may have its own kind of token server, which makes each repository need its own token.
#[test]
fn a_token_server_without_multiple_scopes_is_asked_per_repository() {
    let images = ["one", "two", "three"].map(small);
    let bundle = bundle(&[&images[0], &images[1], &images[2]]);
    let directory = tempdir();
    let map = map_file(directory.path(), &[("team/one", "p1/one"), ("team/two", "p2/two"), ("team/three", "p3/three")]);
    for several_scopes in [Scopes::First, Scopes::FirstOpaque, Scopes::Refused] {
        let projects = ["p1", "p2", "p3"].map(|name| Project::new(name).member("robot$base+ci", Right::Push));
        let server = Harbor::start(projects.into_iter().fold(Setup { several_scopes, ..setup() }, Setup::with));
        import(&bundle, &server, "", ROBOT, &["--map", &map]).ended(0);
        let arrived =
            ["one", "two", "three"].iter().zip(1..).all(|(name, n)| server.tag(&format!("p{n}/{name}"), "1").is_some());
        assert!(arrived, "{several_scopes:?}");
    }
}
