//! How tasks end.

use tokio::task::JoinError;

/// The output of a task that nobody aborts. If the task panicked, the caller panics too.
///
/// # Panics
/// Panics as the task did, or if the runtime stopped before the task had ended.
pub fn task_output<T>(result: Result<T, JoinError>) -> T {
    match result {
        Ok(output) => output,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("the task was aborted: {error}"),
        },
    }
}

/// The task of one connection ended. If it panicked, that is logged and ends nothing else, so that no peer can end the service
/// for others.
pub(crate) fn connection_ended(result: Result<(), JoinError>) {
    if let Err(error) = result
        && error.is_panic()
    {
        tracing::error!("the task of a connection failed: {error}");
    }
}
