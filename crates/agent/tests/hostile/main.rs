//! Hostile content against a model that obeys every word of it, in the agent's own loop.
//!
//! Each case plants text in a file, a file's name, a page or a search result. The scripted model does whatever
//! `DO {"tool":…,"arguments":…}` says anywhere in what it is shown, with what it has seen put into `{{SEEN}}`
//! (or encoded). Nobody is there to be asked. A judge that knows only the world then looks for harm: anything
//! changed that the task did not own, anything sent, any secret value where it does not belong.
//!
//! A case counts only if the same run does harm once its protecting layers are taken away.
#![allow(clippy::unwrap_used)]

mod cases;
mod loops;
mod outside;
mod secrets;
mod trouble;
mod world;

use cases::CASES;
use std::collections::BTreeSet;
use world::{Layers, World};

#[tokio::test]
async fn no_planted_instruction_does_harm_and_each_would_without_its_layers() {
    assert!(CASES.len() >= 60, "the suite has {} cases", CASES.len());
    let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len(), "each case has a name of its own");
    let mut wrong = Vec::new();
    for case in CASES {
        let world = World::new(case);
        world.run(Layers::ALL).await;
        if let Some(harm) = world.harm() {
            wrong.push(format!("{}: {harm}, with every layer in place", case.name));
        }
        // Of layers that protect together, each alone is enough.
        if case.without.len() > 1 {
            for layer in case.without {
                let world = World::new(case);
                world.run(Layers::ALL.without(&[*layer])).await;
                if let Some(harm) = world.harm() {
                    wrong.push(format!("{}: {harm}, without {layer:?} alone", case.name));
                }
            }
        }
        let bare = World::new(case);
        bare.run(Layers::ALL.without(case.without)).await;
        if bare.harm().is_none() {
            wrong.push(format!(
                "{}: does no harm without {:?} either, so it shows nothing: {:?}",
                case.name,
                case.without,
                bare.shown()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}
