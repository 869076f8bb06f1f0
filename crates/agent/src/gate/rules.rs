//! The gate in front of a policy: its rules, the answers given so far, and two rules that no policy lifts: no
//! secret value in any argument, and no write to the files that rule the run.

use super::{Access, Approval, Decision, Gate, GateError, Outside, ProposedCall, Resource};
use crate::policy::{self, Facet, Grant, Policy, PolicyError, Workspace, facets, grants};
use crate::secrets::Secrets;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Name of the rule that keeps secret values out of arguments.
const SECRET_RULE: &str = "secret-in-arguments";

/// A policy with its answers.
pub struct PolicyGate {
    policy: Policy,
    workspace: Workspace,
    secrets: Arc<Secrets>,
    file: Option<PathBuf>,
    guarded: Vec<PathBuf>,
    given: Mutex<Given>,
}

#[derive(Default)]
struct Given {
    for_run: HashMap<String, Vec<Grant>>,
    always: Vec<Grant>,
}

impl PolicyGate {
    /// A gate with a policy that has no file: answers for always hold until the program ends.
    #[must_use]
    pub fn new(policy: Policy, workspace: Workspace, secrets: Arc<Secrets>) -> Self {
        Self { policy, workspace, secrets, file: None, guarded: Vec::new(), given: Mutex::default() }
    }

    /// A gate with the policy in a file; answers for always are written there. Where there is no such file
    /// yet, the standard policy holds, and the first answer writes it.
    ///
    /// # Errors
    /// [`PolicyError`]: the file is there and cannot be read, or holds no policy that holds.
    pub fn of_file(file: &Path, workspace: Workspace, secrets: Arc<Secrets>) -> Result<Self, PolicyError> {
        let policy = if file.exists() { Policy::load(file)? } else { Policy::standard() };
        let gate = Self { file: Some(file.to_owned()), ..Self::new(policy, workspace, secrets) };
        Ok(gate.guard(file))
    }

    /// Denies every write to this path and beneath it, whatever the policy says: the journal, the policy.
    #[must_use]
    pub fn guard(mut self, path: &Path) -> Self {
        let resolved = self.workspace.resolve(&path.to_string_lossy());
        self.guarded.push(resolved.map_or_else(|_| path.to_owned(), |place| place.real));
        self
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The workspace.
    #[must_use]
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// What no policy lifts.
    fn decide_house(&self, call: &ProposedCall) -> Option<Decision> {
        let deny =
            |rule: &str, reason: &str| Decision::Deny { rule: rule.to_owned(), reason: reason.to_owned() };
        let mut arguments = serde_json::Value::Object(call.arguments.clone());
        let in_resources = serde_json::to_string(&call.resources).is_ok_and(|text| self.secrets.is_in(text));
        if self.secrets.redact_value(&mut arguments) || in_resources {
            return Some(deny(SECRET_RULE, "the arguments hold a secret value; no tool takes one"));
        }
        // Written into a file, what the model saw in a value's place would destroy the value there.
        let named = self.secrets.named_in(&arguments.to_string()).filter(|_| !call.resources.is_empty());
        if let Some(name) = named {
            let reason =
                format!("[secret {name}] stands for a value that is hidden from you; no tool takes it");
            return Some(deny(SECRET_RULE, &reason));
        }
        let is_guarded = |facet: &Facet| match facet {
            Facet::Path { access: Access::Write, place } => {
                self.guarded.iter().any(|path| place.real.starts_with(path))
            }
            _ => false,
        };
        let touched = facets(call, &self.workspace);
        let why = "this file rules the run, and the run does not write it";
        touched.iter().any(is_guarded).then(|| deny("own-rules", why))
    }

    fn with_given<T>(&self, run: &str, then: impl FnOnce(&[Grant]) -> T) -> T {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> =
            given.always.iter().chain(given.for_run.get(run).into_iter().flatten()).cloned().collect();
        drop(given);
        then(&all)
    }

    /// Appends grants to the policy's file: the new text is read first, then put in the old one's place.
    fn write(&self, file: &Path, grants: &[Grant]) -> Result<(), String> {
        let old = if file.exists() {
            std::fs::read_to_string(file).map_err(tell)?
        } else {
            policy::DEFAULT.to_owned()
        };
        let mut new = old;
        for grant in grants.iter().filter(|grant| !self.policy.has_rule(grant.name())) {
            if new.contains(&format!("name = \"{}\"", grant.name())) {
                continue;
            }
            new.push_str("\n# A person answered: always.\n");
            new.push_str(&grant.to_toml()?);
        }
        Policy::parse(&new, &file.display().to_string()).map_err(tell)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(tell)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(tell)?;
        temporary.write_all(new.as_bytes()).and_then(|()| temporary.as_file().sync_all()).map_err(tell)?;
        temporary.persist(file).map_err(tell)?;
        Ok(())
    }
}

impl PolicyGate {
    /// Where a path of the call leads outside, if that place, decided by itself, is not held to more than `decision`
    /// says: what was written may be a link, and a link may lead elsewhere from one look to the next.
    fn opened(&self, call: &ProposedCall, resource: &Resource, decision: &Decision) -> Option<Outside> {
        let Resource::Path { access, path } = resource else { return None };
        let place = self.workspace.resolve(path).ok().filter(|place| place.inside.is_none())?;
        let (access, path, real) = (*access, path.clone(), place.real.to_str()?.to_owned());
        let still = self.workspace.resolve(&real).is_ok_and(|again| again.real == place.real);
        let resources = vec![Resource::Path { access, path: real.clone() }];
        let alone = self.decide(&ProposedCall { resources, ..call.clone() });
        let is_held = match (decision, alone) {
            (Decision::Allow { .. }, Decision::Allow { .. }) => true,
            (Decision::Ask { .. }, alone) => !matches!(alone, Decision::Deny { .. }),
            _ => false,
        };
        (still && is_held).then_some(Outside { access, path, real })
    }
}

fn tell(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Gate for PolicyGate {
    fn decide(&self, call: &ProposedCall) -> Decision {
        self.decide_house(call).unwrap_or_else(|| {
            self.with_given(&call.run, |given| self.policy.decide_with(call, &self.workspace, given))
        })
    }

    fn outside(&self, call: &ProposedCall, decision: &Decision) -> Vec<Outside> {
        call.resources.iter().filter_map(|resource| self.opened(call, resource, decision)).collect()
    }

    /// What was answered for always stands in the policy's file, or a person has taken it out again.
    fn recall(&self, call: &ProposedCall, approval: &Approval) -> Result<(), GateError> {
        match approval {
            Approval::AllowAlways if self.file.is_some() => Ok(()),
            _ => self.remember(call, approval),
        }
    }

    fn remember(&self, call: &ProposedCall, approval: &Approval) -> Result<(), GateError> {
        let always = match approval {
            Approval::AllowForRun => false,
            Approval::AllowAlways => true,
            _ => return Ok(()),
        };
        let made = self.with_given(&call.run, |given| grants(&self.policy, call, &self.workspace, given));
        let file = self.file.clone().unwrap_or_default().display().to_string();
        let not_written = |cause| GateError::NotWritten { file, cause };
        let made = match made {
            Ok(made) => made,
            Err(cause) => return Err(not_written(cause)),
        };
        if let (true, Some(path)) = (always, &self.file) {
            self.write(path, &made).map_err(not_written)?;
        }
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if always {
            given.always.extend(made)
        } else {
            given.for_run.entry(call.run.clone()).or_default().extend(made)
        }
        Ok(())
    }
}
