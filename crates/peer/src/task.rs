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

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        io,
        sync::{Arc, Mutex},
    };

    use tokio::task::JoinSet;
    use tracing::subscriber::set_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_connection_that_panics_is_logged_and_one_that_was_dropped_is_not() {
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone());
        let _guard = set_default(subscriber.finish());
        let mut tasks = JoinSet::new();
        tasks.spawn(pending::<()>()).abort();
        connection_ended(tasks.join_next().await.unwrap());
        tasks.spawn(async { panic!("a test") });
        connection_ended(tasks.join_next().await.unwrap());
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            (log.lines().count(), log.contains("ERROR"), log.contains("panicked")),
            (1, true, true),
            "{log}"
        );
    }
}
