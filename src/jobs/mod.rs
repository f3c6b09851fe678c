//! From a settled series to a stored result: the queue, leases, the worker.
//!
//! Settled series become jobs; a worker claims one under a lease, runs the core on a thread, and stores the results under the job and the claim's token. What the rows say
//! happened; files that no row names are garbage.

mod core;
mod error;
mod figures;
mod kept;
mod names;
mod settings;
mod sweep;
mod worker;

pub use self::core::{Core, specification};
pub use error::{JobError, NetworkLost};
pub use names::{host_name, worker_name};
pub use settings::JobSettings;
pub use worker::Worker;
