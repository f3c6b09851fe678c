//! From a settled series to a stored result: the queue, leases, the worker.

mod settings;

pub use settings::JobSettings;
