//! The steps that remain after a storage was written.

use std::path::Path;

use crate::base::fsops;

/// Numeric user and group.
#[derive(Clone, Copy)]
pub struct OwnerArg(fsops::Owner);

impl std::str::FromStr for OwnerArg {
    type Err = String;

    fn from_str(text: &str) -> Result<OwnerArg, String> {
        let numbers = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
        let owner = numbers.map(|(user, group)| OwnerArg(fsops::Owner { user, group }));
        owner.ok_or_else(|| "expected two numbers, UID:GID".to_owned())
    }
}

impl From<OwnerArg> for fsops::Owner {
    fn from(owner: OwnerArg) -> fsops::Owner {
        owner.0
    }
}

/// Lists the remaining steps for the operator.
pub fn remaining(to: &Path, owner: Option<fsops::Owner>, linked: bool) -> String {
    let owned = match owner {
        Some(_) => String::new(),
        None if linked => {
            "\n   (its files belong to others: Harbor wants 10000:10000. Not by chown, which would change the linked storage \
             too, but by this command with --chown 10000:10000)"
                .to_owned()
        }
        None => "\n   (its files belong to you: Harbor wants 10000:10000, --chown 10000:10000)".to_owned(),
    };
    format!(
        "What is left to do, on Harbor 1.x (2.x does not look into its storage: use --to):\n\
         1. stop Harbor: docker-compose down\n\
         2. place {}/docker in the directory registry of its data volume, such as /data/registry/docker{owned}\n\
         3. remove what its redis remembers: redis/dump.rdb on the data volume\n\
         4. start Harbor: docker-compose up -d\n\
         A docker registry takes {} as its rootdirectory as it is.",
        to.display(),
        to.display()
    )
}
