//! All integration tests in one program, so that shared code is compiled and linked once.
//!
//! They run as threads of one process. A test must not change the process's environment, working directory or limits. A
//! test that needs to runs a program of its own, as `registry::tls` does.
//!
//! Messages of the process mask every password and token that any test has given to the library. None of them may be a
//! word of a message.

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
