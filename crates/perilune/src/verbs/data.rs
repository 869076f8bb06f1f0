//! Where Perilune keeps what must survive: one folder, named by a flag, the environment, or the desktop's habit.

use anyhow::{Context, anyhow};
use clap::Args;
use perilune_server::store::Store;
use std::path::PathBuf;

/// The flag of every verb that keeps something.
#[derive(Args, Clone)]
pub(crate) struct DataArgs {
    /// Folder of keys and usage [default: $XDG_DATA_HOME/perilune, else ~/.local/share/perilune]
    #[arg(long, value_name = "DIR", env = "PERILUNE_DATA")]
    data: Option<PathBuf>,
}

impl DataArgs {
    /// The folder, made if it is not there, readable by its owner alone.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        let dir = self.data.clone().or_else(usual).ok_or_else(|| {
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

    /// Keys and usage.
    pub(crate) fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.folder()?.join("perilune.db"))?)
    }
}

fn usual() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Some(base?.join("perilune"))
}

/// A runtime for verbs that only wait for the store.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}
