//! A new run that starts with the first steps of another.

use super::{Entry, Event, JOURNAL_FILE, JournalError, Opened, create, own_folder, read_whole_part};
use crate::tools::OWN_FOLDER;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::path::Path;

/// A new run `run` in the folder `to` that starts with the first `n_steps` steps of the run in `from`, and with the
/// artefacts that they made. The workspace is as it is now: effects are not taken back. Of a damaged journal the
/// steps before the damage can be taken.
///
/// # Errors
/// [`JournalError::NoSuchStep`] or [`JournalError::StepIsDamaged`] where there are not as many whole steps,
/// [`JournalError::Exists`] where `to` is there already, others where one of the two cannot be read or written.
pub fn fork(from: &Path, to: &Path, run: &str, n_steps: u64) -> Result<(), JournalError> {
    let (entries, damage) = read_whole_part(from)?;
    let n_kept = kept(&entries, n_steps).map_err(|n_steps| match damage {
        None => JournalError::NoSuchStep { n_steps },
        Some(damage) => JournalError::StepIsDamaged { n_steps, damage: Box::new(damage) },
    })?;
    if to.exists() {
        return Err(JournalError::Exists { path: to.join(JOURNAL_FILE) });
    }
    // A process that dies here leaves no run rather than one with fewer steps.
    let partial = to.with_file_name(format!(".{run}.partial"));
    let failed = |error: std::io::Error| JournalError::Io { path: to.to_owned(), problem: error.to_string() };
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(failed)?;
    }
    write(&partial, run, &entries[..n_kept])?;
    copy_artefacts(from, &partial, &entries[..n_kept]).map_err(failed)?;
    std::fs::rename(&partial, to).map_err(failed)
}

/// How many events the first steps have; the number of whole steps where there are not as many.
fn kept(entries: &[Entry], n_steps: u64) -> Result<usize, u64> {
    let is_end = |entry: &Entry| matches!(entry.event, Event::TurnEnded { .. });
    let ends: Vec<usize> = (1..=entries.len()).filter(|n| is_end(&entries[n - 1])).collect();
    match usize::try_from(n_steps) {
        Ok(0) => Ok(1),
        Ok(n) => ends.get(n - 1).copied().ok_or(ends.len() as u64),
        Err(_) => Err(ends.len() as u64),
    }
}

fn write(folder: &Path, run: &str, entries: &[Entry]) -> Result<(), JournalError> {
    let Some((Entry { at_ms, event: Event::Opened(opened), .. }, rest)) = entries.split_first() else {
        return Err(JournalError::NoSuchStep { n_steps: 0 });
    };
    let forked_from = Some(opened.run.clone());
    let opened = Opened { run: run.to_owned(), forked_from, ..opened.clone() };
    let (mut journal, _) = create(folder, *at_ms, opened)?;
    for (idx, Entry { at_ms, event, .. }) in rest.iter().enumerate() {
        journal.append(*at_ms, event.clone(), idx + 1 == rest.len())?;
    }
    Ok(())
}

/// Whole results are written again from the journal when the run goes on; what a tool left for people is not.
fn copy_artefacts(from: &Path, to: &Path, entries: &[Entry]) -> std::io::Result<()> {
    let made = entries.iter().flat_map(|entry| match &entry.event {
        Event::Outcome { output, .. } => output.artefacts.as_slice(),
        _ => &[],
    });
    let (from, to) = (own_folder(from), own_folder(to));
    let Ok(source) = Dir::open_ambient_dir(from, ambient_authority()) else { return Ok(()) };
    std::fs::create_dir_all(&to)?;
    let target = Dir::open_ambient_dir(to, ambient_authority())?;
    for path in made {
        let path = path.strip_prefix(OWN_FOLDER).unwrap_or(path).trim_start_matches('/');
        if !source.symlink_metadata(path).is_ok_and(|it| it.is_file()) {
            continue;
        }
        if let Some(parent) = Path::new(path).parent() {
            target.create_dir_all(parent)?;
        }
        source.copy(path, &target, path)?;
    }
    Ok(())
}
