//! Where Perilune keeps what must survive: one folder, named by a flag or the setting `data`.

use crate::settings::{self, Origin};
use anyhow::{Context, anyhow};
use clap::Args;
use perilune_server::store::Store;
use std::path::PathBuf;

/// Name of the file of keys and usage.
const STORE_FILE: &str = "perilune.db";

/// The flag of every verb that keeps something.
#[derive(Args, Clone)]
pub(crate) struct DataArgs {
    /// Folder of keys, usage and runs [default: the setting `data`]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DataArgs {
    /// The folder, made if it is not there, readable by its owner alone.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        let dir = self.place().ok_or_else(|| {
            anyhow!("neither XDG_DATA_HOME nor HOME is set: name a folder for keys and usage with --data")
        })?;
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(&dir)
            .with_context(|| format!("{} cannot be made; name another folder with --data", dir.display()))?;
        Ok(dir)
    }

    /// The folder, whether it is there or not; `None` where nobody names one.
    pub(crate) fn place(&self) -> Option<PathBuf> {
        settings::get().data.or_flag(self.data.clone().map(Some)).value
    }

    /// The folder that somebody chose, as a flag to be given again.
    pub(crate) fn given(&self) -> Vec<String> {
        let chosen = settings::get().data.or_flag(self.data.clone().map(Some));
        let dir = chosen.value.filter(|_| chosen.origin != Origin::Default);
        dir.iter().flat_map(|dir| ["--data".to_owned(), dir.display().to_string()]).collect()
    }

    /// Keys and usage.
    pub(crate) fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.folder()?.join(STORE_FILE))?)
    }

    /// Whether keys or usage were kept before; makes nothing.
    pub(crate) fn has_store(&self) -> bool {
        self.place().is_some_and(|dir| dir.join(STORE_FILE).exists())
    }
}

/// A runtime for verbs that only wait for the store.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}
