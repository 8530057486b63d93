//! The tasks and threads of a process, each with a name, an owner and an end.
//!
//! Everything that runs in the background is spawned here. All of it sees one stop token; at the end it is
//! joined with a deadline, and what did not finish is named. A panic is our bug: it ends the process and says
//! which task had it, rather than leaving a daemon that runs without one of its parts.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

type Name = Cow<'static, str>;

tokio::task_local! {
    /// Name of the task that runs on this thread right now.
    static TASK: Name;
}

thread_local! {
    /// Name of the thread, when it is one of ours.
    static THREAD: RefCell<Option<Name>> = const { RefCell::new(None) };
}

/// Tasks that outlived the deadline of [`Tasks::join`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not finished after {}ms: {}", deadline.as_millis(), names.join(", "))]
pub struct Unfinished {
    /// Their names, in the order they were started.
    pub names: Vec<String>,
    /// How long they were given.
    pub deadline: Duration,
}

/// The background tasks and threads of a process. Clones are handles to the same set.
#[derive(Clone, Debug)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    /// Names of what runs, for the report of what does not finish.
    running: Arc<Mutex<BTreeMap<u64, Name>>>,
    started: Arc<AtomicU64>,
}

impl Tasks {
    /// An empty set that ends when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        name_panics();
        Self {
            stop,
            tracker: TaskTracker::new(),
            running: Arc::default(),
            started: Arc::default(),
        }
    }

    /// The token that every task of this set watches.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a future in the background. It is expected to return soon after [`Self::stop`] is cancelled.
    pub fn spawn<F>(&self, name: impl Into<Name>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let running = self.register(name.clone());
        self.tracker.spawn(TASK.scope(name, async move {
            let _running = running;
            future.await;
        }));
    }

    /// Runs a closure on a thread of its own, for work that blocks or must not share its core's queue. It is
    /// expected to return soon after [`Self::stop`] is cancelled. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub fn spawn_thread<F>(&self, name: impl Into<Name>, body: F) -> io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let name = name.into();
        let running = self.register(name.clone());
        let (finished, wait) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name(name.clone().into_owned())
            .spawn(move || {
                THREAD.set(Some(name));
                let _running = running;
                let _finished = finished;
                body();
            })?;
        self.tracker.spawn(async move {
            // Closed without a value when the thread returns: that is the message.
            let _closed = wait.await;
        });
        Ok(())
    }

    /// Cancels the token and waits until everything has returned.
    ///
    /// # Errors
    /// The names of what still runs after `deadline`.
    pub async fn join(&self, deadline: Duration) -> Result<(), Unfinished> {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let names = lock(&self.running).values().map(ToString::to_string).collect();
        Err(Unfinished { names, deadline })
    }

    fn register(&self, name: Name) -> Running {
        let id = self.started.fetch_add(1, Ordering::Relaxed);
        lock(&self.running).insert(id, name);
        Running {
            id,
            all: Arc::clone(&self.running),
        }
    }
}

/// Takes the name off the list when the task ends, however it ends.
struct Running {
    id: u64,
    all: Arc<Mutex<BTreeMap<u64, Name>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let name = lock(&self.all).remove(&self.id);
        debug!(task = name.as_deref(), "task ended");
    }
}

/// The map is whole after every operation on it, so a poisoned lock says nothing about it.
fn lock(running: &Mutex<BTreeMap<u64, Name>>) -> MutexGuard<'_, BTreeMap<u64, Name>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a panic in one of our tasks or threads name it and end the process. Done in the panic hook, since
/// release builds abort there and never unwind into whoever would join the task.
fn name_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            if let Some(task) = current() {
                report(&task, panic);
                std::process::abort();
            }
        }));
    });
}

/// Name of the task or thread of ours that runs on this thread.
fn current() -> Option<Name> {
    TASK.try_with(Clone::clone)
        .ok()
        .or_else(|| THREAD.try_with(|name| name.borrow().clone()).ok().flatten())
}

fn report(task: &str, panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    let place = panic.location().map(ToString::to_string);
    error!(task, place, "task panicked, ending the process: {message}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn join_cancels_and_waits_for_tasks_and_threads() {
        let tasks = Tasks::new(CancellationToken::new());
        let stop = tasks.stop().clone();
        tasks.spawn("waiter", async move { stop.cancelled().await });
        let stop = tasks.stop().clone();
        let runtime = tokio::runtime::Handle::current();
        tasks
            .spawn_thread("thread", move || runtime.block_on(stop.cancelled()))
            .unwrap();
        assert_eq!(tasks.join(Duration::from_secs(10)).await, Ok(()));
    }

    #[tokio::test]
    async fn join_names_what_does_not_finish() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("stubborn", std::future::pending());
        tasks.spawn(String::from("polite"), async {});
        let unfinished = tasks.join(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(unfinished.names, ["stubborn"]);
        assert_eq!(unfinished.to_string(), "not finished after 20ms: stubborn");
    }

    /// Set in the child of [`a_panic_ends_the_process_and_names_the_task`].
    const CHILD: &str = "DAEMON_TEST_PANIC";

    #[test]
    fn a_panic_ends_the_process_and_names_the_task() {
        let name = "tasks::tests::a_panic_ends_the_process_and_names_the_task";
        if let Ok(kind) = std::env::var(CHILD) {
            return panic_in(&kind);
        }
        for kind in ["task", "thread"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let output = child
                .args(["--exact", name, "--nocapture"])
                .env(CHILD, kind)
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "the process lived on: {errors}");
            assert!(errors.contains(&format!("task=\"unlucky {kind}\"")), "{errors}");
            assert!(errors.contains("out of luck"), "{errors}");
        }
    }

    fn panic_in(kind: &str) {
        crate::log::init(&crate::log::LogConfig::default()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let tasks = Tasks::new(CancellationToken::new());
            match kind {
                "task" => tasks.spawn("unlucky task", async { panic!("out of luck") }),
                _ => tasks
                    .spawn_thread("unlucky thread", || panic!("out of luck"))
                    .unwrap(),
            }
            std::future::pending::<()>().await;
        });
    }
}
