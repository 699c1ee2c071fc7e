//! What the operating system lets the server have.

/// Files the server needs beside its connections: listeners, store, runtimes.
const OPEN_FILES_OF_ITS_OWN: u64 = 256;

/// Raises the soft limit on open files to the hard one, and says when that is less than the connections allowed.
pub(super) fn raise_open_files(connections: usize) {
    let wanted = connections as u64 + OPEN_FILES_OF_ITS_OWN;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < wanted => {
            let room = limit.saturating_sub(OPEN_FILES_OF_ITS_OWN);
            tracing::info!(
                limit,
                "open files allow about {room} connections; raise the hard limit for more (LimitNOFILE)"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files could not be raised"),
    }
}
