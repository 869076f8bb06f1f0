//! Endpoints elsewhere that a server forwards to, each with a key of its own.

use super::data::{DataArgs, wait};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use perilune_server::store::Store;
use perilune_server::upstream::{Dialect, Endpoint, Upstream};
use std::path::PathBuf;

/// Variable of the key where there is one endpoint and no `--upstream-key`.
pub(crate) const ONE_KEY: &str = "PERILUNE_UPSTREAM_KEY";

/// The flags.
#[derive(Args, Clone)]
pub(crate) struct UpstreamArgs {
    /// Forward ID to another OpenAI-shaped endpoint, where the model is called MODEL; `anthropic+` before the address
    /// says that it is Anthropic-shaped
    #[arg(long, value_name = "ID=[anthropic+]URL[#MODEL]", value_parser = parse_place)]
    upstream: Vec<Place>,
    /// Where the key of the endpoint behind ID is kept: an environment variable or a file [default, for a single
    /// endpoint: env:PERILUNE_UPSTREAM_KEY where it is set]
    #[arg(long, value_name = "ID=env:NAME|file:PATH", value_parser = parse_key)]
    upstream_key: Vec<(String, Source)>,
}

#[derive(Clone)]
struct Place {
    id: String,
    base_url: String,
    model: String,
    dialect: Dialect,
}

/// Where a key is kept.
#[derive(Clone)]
enum Source {
    Env(String),
    File(PathBuf),
}

fn parse_place(text: &str) -> Result<Place, String> {
    let (id, place) = text.split_once('=').ok_or("write it as ID=https://host/v1#MODEL")?;
    let (url, model) = place.split_once('#').unwrap_or((place, id));
    let (dialect, base_url) = match url.strip_prefix("anthropic+") {
        Some(url) => (Dialect::Anthropic, url),
        None => (Dialect::OpenAi, url),
    };
    Ok(Place { id: id.to_owned(), base_url: base_url.to_owned(), model: model.to_owned(), dialect })
}

fn parse_key(text: &str) -> Result<(String, Source), String> {
    let wrong = "write it as ID=env:NAME or ID=file:PATH; the key itself does not belong on a command line";
    let (id, place) = text.split_once('=').ok_or(wrong)?;
    let source = match place.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Source::Env(name.to_owned()),
        Some(("file", path)) if !path.is_empty() => Source::File(path.into()),
        _ => return Err(wrong.to_owned()),
    };
    Ok((id.to_owned(), source))
}

/// The client of one endpoint, written `[anthropic+]URL#MODEL`, and the store that it remembers seals in where its
/// shape has them; its key is in [`ONE_KEY`].
pub(crate) fn one(text: &str, data: &DataArgs) -> anyhow::Result<(Upstream, Option<Store>)> {
    let Some((_, id)) = text.split_once('#') else {
        bail!("write --upstream as URL#MODEL, such as http://127.0.0.1:8080/v1#kimi-k2-thinking");
    };
    let place = parse_place(&format!("{id}={text}")).map_err(|message| anyhow!(message))?;
    let alone = UpstreamArgs { upstream: vec![place], upstream_key: Vec::new() };
    let (_, client) = alone.client(&alone.upstream[0])?;
    if alone.upstream[0].dialect != Dialect::Anthropic {
        return Ok((client, None));
    }
    let store = data.store()?;
    Ok((wait(client.with_store(&store))??, Some(store)))
}

impl Source {
    fn key(&self) -> anyhow::Result<String> {
        let (text, place) = match self {
            Self::Env(name) => {
                let text = std::env::var(name).with_context(|| {
                    format!("the variable {name}, which --upstream-key names, cannot be read")
                })?;
                (text, name.clone())
            }
            Self::File(path) => {
                let text = std::fs::read_to_string(path).with_context(|| {
                    format!("{}, which --upstream-key names, cannot be read", path.display())
                })?;
                (text, path.display().to_string())
            }
        };
        match text.trim() {
            "" => bail!("{place}, which --upstream-key names, holds no key"),
            key => Ok(key.to_owned()),
        }
    }
}

impl UpstreamArgs {
    /// Whether nothing is forwarded.
    pub(crate) fn is_empty(&self) -> bool {
        self.upstream.is_empty()
    }

    /// The clients by the ids that they serve.
    pub(crate) fn clients(&self) -> anyhow::Result<Vec<(String, Upstream)>> {
        let is_known = |id: &str| self.upstream.iter().any(|place| place.id == id);
        if let Some((id, _)) = self.upstream_key.iter().find(|(id, _)| !is_known(id)) {
            bail!("--upstream-key names {id:?}, which no --upstream serves; give both the same id");
        }
        self.upstream.iter().map(|place| self.client(place)).collect()
    }

    fn client(&self, place: &Place) -> anyhow::Result<(String, Upstream)> {
        let Place { id, base_url, model, dialect } = place.clone();
        let named = self.upstream_key.iter().rfind(|(named, _)| *named == id);
        let api_key = match named {
            Some((_, source)) => Some(source.key()?),
            // With several endpoints it would be sent to some that it is not for.
            None if self.upstream.len() == 1 => {
                std::env::var(ONE_KEY).ok().filter(|key| !key.trim().is_empty())
            }
            None => None,
        };
        let endpoint = Endpoint { base_url, api_key, model, dialect };
        Ok((id, Upstream::new(endpoint).map_err(|message| anyhow!(message))?))
    }
}
