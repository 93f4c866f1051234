//! `registries.conf`: read or refused, bounded in memory; where it sends a repository is a name like any other.
#![no_main]

use gapferry::oci::Repository;
use gapferry::routes::Routes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gapferry_fuzz::bounded(16 << 20 | 600 * data.len(), || {
    match Routes::parse(&[("registries.conf".to_owned(), data.to_vec())]) {
        Ok(routes) => {
            for name in ["docker.io/library/nginx", "quay.io/a/b", "registry.example.com:5000/a/b/c"] {
                let repository: Repository = name.parse().expect("a name");
                match routes.pull(&repository) {
                    Ok(places) => {
                        assert!(!places.is_empty(), "nowhere to ask");
                        for place in places {
                            let name = place.repository.to_string();
                            // Also where the host is one word, which a reference would take for a part of Docker Hub.
                            let (host, path) = name.split_once('/').expect("a host and a path");
                            assert_eq!(Repository::new(host, path).expect("a name again"), place.repository);
                            gapferry_fuzz::is_harmless(&name);
                        }
                    }
                    Err(error) => gapferry_fuzz::is_harmless(&error.to_string()),
                }
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|problem| gapferry_fuzz::is_harmless(&problem.to_string()));
        }
    }
}));
