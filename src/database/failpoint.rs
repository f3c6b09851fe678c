//! Named points at which a test lets the program die with all that it started in its process group, as `kill -9` to the group would: `HILUM_FAILPOINT=NAME`. Whoever sets
//! it starts the program in a group of its own. In release builds they are nothing.

/// Dies here where the environment names this point.
#[inline]
pub fn failpoint(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("HILUM_FAILPOINT").is_some_and(|point| point == name) {
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::KILL);
        // The signal is on its way to this very process.
        std::thread::park();
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
