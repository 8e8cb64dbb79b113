//! The limit of open files, which every connection counts against.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs in addition to its connections: standard streams, epoll, event descriptors, `/proc`.
const FILES_BESIDE_CONNECTIONS: u64 = 64;

/// Raises the soft limit of open files to the hard limit. Warns on stderr if that fails or is not enough for
/// `connections`.
pub fn raise_open_files_limit(connections: Option<usize>) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            eprintln!(
                "warning: cannot raise the limit of open files: {error}; try `ulimit -n` in the shell"
            );
            limit.current
        }
    };
    if let (Some(connections), Some(allowed)) = (connections, allowed) {
        let needed = connections as u64 + FILES_BESIDE_CONNECTIONS;
        if needed > allowed {
            eprintln!(
                "warning: {connections} connections need {needed} open files and {allowed} are allowed; \
                 raise the hard limit (`ulimit -Hn`) or ask for fewer connections"
            );
        }
    }
}
