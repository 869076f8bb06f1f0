//! What must survive a restart: API keys, balances, prices and one ledger line per request, in one SQLite file.
//!
//! One thread owns the connection that writes and runs jobs in the order they come, so there is one writer; keys are
//! looked up through a connection that only reads, where they are asked for. Another process (the command line) may
//! open the same file beside it. A request is booked twice: *opened* before its work
//! begins and *settled* when it ends. A process killed between the two leaves an open line, which the next start
//! marks `lost` and charges nothing for: its tokens are not known.

mod error;
mod keys;
mod ledger;
mod price;
mod schema;

pub use error::StoreError;
pub use keys::{BalanceChange, Key, KeyChange, KeyKind, KeyLimits, NewKey, digest};
pub use ledger::{Line, Opened, Outcome, Period, Status, Totals};
pub use price::{PRICE_DOLLARS_MAX, Price, Usd};

use rusqlite::{Connection, OpenFlags};
use std::future::Future;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Jobs that may wait for the store's thread; a sender beyond them waits.
const JOBS_MAX: usize = 4096;
/// How long one process waits for another's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Speaks to the store's thread; clones speak to the same one, which ends with the last of them.
#[derive(Clone)]
pub struct Store {
    jobs: SyncSender<Job>,
    /// Reads beside the writer, which takes less time than handing a job over; a store in memory has none.
    reader: Option<Arc<Mutex<Connection>>>,
}

impl Store {
    /// Opens (or makes) the file and brings its schema up to date. A store waits five seconds for another process's
    /// write before it fails.
    ///
    /// # Errors
    /// When the file cannot be opened, was written by a newer Perilune, or the system gives no thread.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let at = |source| StoreError::at(path, &source);
        let connection = Connection::open(path).map_err(at)?;
        let store = Self::start(connection).map_err(|error| error.of_file(path))?;
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(at)?;
        reader.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self { reader: Some(Arc::new(Mutex::new(reader))), ..store })
    }

    /// A store in memory, which ends with its last clone.
    ///
    /// # Errors
    /// When SQLite gives no memory or the system no thread.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::start(Connection::open_in_memory()?)
    }

    fn start(mut connection: Connection) -> Result<Self, StoreError> {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        schema::prepare(&mut connection)?;
        let (jobs, inbox) = mpsc::sync_channel::<Job>(JOBS_MAX);
        let work = move || inbox.iter().for_each(|job| job(&mut connection));
        let thread = std::thread::Builder::new().name("perilune-store".to_owned());
        thread.spawn(work).map_err(StoreError::Thread)?;
        Ok(Self { jobs, reader: None })
    }

    /// Reads what is committed: a row or two, here and now where there is a reader.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.reader {
            Some(reader) => job(&reader.lock().unwrap_or_else(PoisonError::into_inner)),
            None => self.run(|connection| job(connection)).await,
        }
    }

    /// Hands a job over now; the future waits for its result.
    fn run<T: Send + 'static, F>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, F>
    where
        F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let posted = self.post(move |connection| {
            // A caller that has gone away needs no result.
            let _ = reply.send(job(connection));
        });
        async move {
            posted?;
            result.await.map_err(|_| StoreError::Closed)?
        }
    }

    /// Hands a job over without waiting for it.
    fn post(&self, job: impl FnOnce(&mut Connection) + Send + 'static) -> Result<(), StoreError> {
        self.jobs.send(Box::new(job)).map_err(|_| StoreError::Closed)
    }
}

/// Unix time in milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
