//! Prompts in the published vocabulary: token counts and ids that its users have reported or derived.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

mod support;

use perilune_chat::message::Envelope;
use perilune_chat::template::Template;
use perilune_chat::tokenizer::SpecialText;
use perilune_chat::wire;
use support::document::Document;

/// The single user message `hi`; the model's own server reports 26 prompt tokens for it.
const HI: [u32; 26] = [
    163594, 14062, 163601, 3900, 554, 24980, 72, 11, 519, 22572, 26626, 5232, 673, 30218, 10065, 22572, 13,
    163586, 163587, 2482, 163601, 9663, 163586, 163588, 69702, 163601,
];

#[test]
fn worked_examples_have_the_published_token_counts() {
    let Some(tokenizer) = support::k2_tokenizer("k2_prompts") else { return };
    let document = Document::read(&support::tests_dir().join("documents/template/worked_examples.md"));
    let requests: Vec<&str> = document.cases.iter().filter_map(|case| case.get("request")).collect();
    let prompts: Vec<Vec<u32>> = requests
        .iter()
        .map(|body| {
            let sent: wire::openai::ChatRequest = wire::from_json(body.as_bytes()).unwrap();
            let request = Envelope::try_from(sent).unwrap().request;
            let rendered = Template::default().render(&request.conversation, request.thinking);
            let ids = rendered.ids(&tokenizer, SpecialText::AsText);
            assert_eq!(
                ids,
                rendered.ids(&tokenizer, SpecialText::AsTokens),
                "both modes agree without marker text"
            );
            ids
        })
        .collect();
    assert_eq!(prompts.iter().map(Vec::len).collect::<Vec<_>>(), [26, 128, 173]);
    assert_eq!(prompts[0], HI);
}
