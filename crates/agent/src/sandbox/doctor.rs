//! Which layers this system gives, found out by putting each up around a program that does nothing.

use super::host::{Sandbox, SandboxError};
use super::layers::{Layer, Layers};
use super::view::{Access, View};
use super::wire::Program;
use std::path::Path;

/// What was found about one layer.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The layer.
    pub layer: Layer,
    /// Why it cannot be put up; `None` where it can.
    pub refused: Option<String>,
    /// The layer beneath it that was refused in its place.
    pub for_want_of: Option<Layer>,
}

/// Try every layer by itself, with the user and mount namespaces that it stands on. `workspace` is bound read-only.
///
/// # Errors
/// The sandbox could not even be started, so nothing is known of its layers.
pub async fn examine(workspace: &Path) -> Result<Vec<Finding>, SandboxError> {
    let mut findings = Vec::with_capacity(Layer::ALL.len());
    for layer in Layer::ALL {
        let mut sandbox = Sandbox::new(View::new(workspace, Access::ReadOnly));
        sandbox.layers = Layers::only(foundation(layer).into_iter().chain([layer]));
        let (refused, for_want_of) = match sandbox.run(&Program::new(["/bin/true"]), &[], &mut |_| ()).await {
            Ok(_) => (None, None),
            Err(SandboxError::Refused { layer: refused, why }) if refused == layer => (Some(why), None),
            Err(SandboxError::Refused { layer: refused, why }) => {
                (Some(format!("it stands on {refused}: {why}")), Some(refused))
            }
            Err(other) => return Err(other),
        };
        findings.push(Finding { layer, refused, for_want_of });
    }
    Ok(findings)
}

/// What a layer cannot be put up without when the user is not root.
fn foundation(layer: Layer) -> Vec<Layer> {
    match layer {
        Layer::CleanStart
        | Layer::ControlGroup
        | Layer::UserNamespace
        | Layer::Capabilities
        | Layer::ResourceLimits
        | Layer::Landlock
        | Layer::Seccomp => Vec::new(),
        _ => vec![Layer::UserNamespace],
    }
}
