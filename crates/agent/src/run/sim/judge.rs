//! Was it right? Looks at the world, the model's mail and raw rows; uses nothing of the agent.

use super::world::World;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// `Err` says what went wrong.
pub(super) fn judge(world: &World) -> Result<(), String> {
    let rows = chained(world)?;
    effects(world, &rows)?;
    journal(&rows)?;
    mail(world, &rows)?;
    limits(world, &rows)?;
    asked_after_answer(&rows)
}

fn ensure(is_right: bool, wrong: impl Fn() -> String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(wrong()) }
}

/// The rows as JSON, their chain computed anew.
fn chained(world: &World) -> Result<Vec<Value>, String> {
    let mut before: Vec<u8> = Sha256::digest("perilune journal 1").to_vec();
    let mut values = Vec::new();
    for (idx, row) in world.rows().iter().enumerate() {
        let mut bytes = before.clone();
        bytes.extend((idx as u64 + 1).to_le_bytes());
        bytes.extend(row.at_ms.to_le_bytes());
        bytes.extend(row.body.bytes());
        before = Sha256::digest(&bytes).to_vec();
        ensure(row.seq == idx as u64 + 1 && row.hash[..] == before[..], || {
            format!("row {} is unlinked", idx + 1)
        })?;
        values.push(serde_json::from_str(&row.body).map_err(|error| error.to_string())?);
    }
    Ok(values)
}

fn of<'a>(rows: &'a [Value], event: &'a str) -> impl Iterator<Item = &'a Value> {
    rows.iter().filter(move |row| row["event"] == event)
}

/// Calls of the journal in order: number, tool, and id where the arguments are legal.
fn calls(rows: &[Value]) -> Vec<(u64, String, Option<u64>)> {
    let texts = of(rows, "answered").flat_map(|row| row["calls"].as_array().unwrap());
    let parsed = texts.zip(1..).map(|(call, number)| {
        let arguments: Value =
            serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap_or(Value::Null);
        (number, call["name"].as_str().unwrap().to_owned(), arguments["id"].as_u64())
    });
    parsed.collect()
}

fn effects(world: &World, rows: &[Value]) -> Result<(), String> {
    let deeds = world.deeds();
    for deed in &deeds {
        let (tool, id) = (deed.tool, deed.id);
        ensure(deed.was_announced, || format!("{tool} {id} was not announced"))?;
        let must_sync = ["pay", "send", "drop", "launch", "confirm"].contains(&tool);
        ensure(deed.was_synced || !must_sync, || format!("{tool} {id} was not on the disk"))?;
        ensure(tool != "forbid", || format!("forbidden {id} happened"))?;
        ensure(tool != "confirm" || id % 2 == 0, || format!("confirm {id} was refused and happened"))?;
        let same = deeds.iter().filter(|other| other.id == id && other.tool == tool).count();
        ensure(same == 1 || !must_sync, || format!("{tool} {id} happened {same} times"))?;
        let other_key = deeds.iter().any(|other| other.id == id && id > 0 && other.key != deed.key);
        ensure(!other_key, || format!("{tool} {id} was attempted with two keys"))?;
    }
    for (number, name, id) in calls(rows) {
        let Some(id) = id else { continue };
        let must = match name.as_str() {
            "look" | "put" | "pay" | "send" | "drop" | "launch" => true,
            "confirm" => id % 2 == 0,
            _ => false,
        };
        let is_settled = rows
            .iter()
            .any(|row| ["outcome", "told"].iter().any(|it| row["event"] == *it) && row["call"] == number);
        let happened = deeds.iter().any(|deed| deed.id == id && deed.tool == name);
        ensure(!must || !is_settled || happened, || format!("{name} {id} was settled and did not happen"))?;
    }
    Ok(())
}

/// Each call is settled once, what was attempted by an outcome, and in declared order.
fn journal(rows: &[Value]) -> Result<(), String> {
    let ended = of(rows, "ended").count();
    ensure(ended == 1, || format!("the run ended {ended} times"))?;
    let settled: Vec<u64> = rows
        .iter()
        .filter(|row| row["event"] == "outcome" || row["event"] == "told")
        .filter_map(|row| row["call"].as_u64())
        .collect();
    let all: Vec<u64> = calls(rows).iter().map(|call| call.0).collect();
    ensure(settled.len() == all.len(), || format!("{} of {} calls are settled", settled.len(), all.len()))?;
    for (number, name, id) in calls(rows) {
        let has = |event| of(rows, event).any(|row| row["call"] == number);
        // The person says no where the thing has happened; then it stays without an outcome.
        let is_open = ["drop", "launch"].contains(&name.as_str());
        ensure(!has("intent") || has("outcome") || is_open, || format!("{name} {id:?} has no outcome"))?;
        ensure(!has("outcome") || has("intent"), || format!("{name} {id:?} has no intent"))?;
    }
    let writes: Vec<u64> = of(rows, "intent")
        .filter(|row| row["effect"] != "read")
        .filter_map(|row| row["call"].as_u64())
        .collect();
    ensure(writes.is_sorted(), || format!("effects happened out of order: {writes:?}"))
}

/// The model's last mail holds every turn: thinking with its own calls, each call with a result.
fn mail(world: &World, rows: &[Value]) -> Result<(), String> {
    let last = world.sent().last().cloned().unwrap_or_default();
    let mut lines = last.lines();
    let last_answer = rows.iter().rposition(|row| row["event"] == "answered").unwrap_or(0);
    for turn in of(rows, "answered").take(of(&rows[..last_answer], "turn_ended").count()) {
        let thought = turn["reasoning"].as_str().unwrap();
        ensure(thought.starts_with("thought "), || "thinking was not kept".to_owned())?;
        ensure(!thought.contains("<|tool_call"), || format!("a call was lost in {thought}"))?;
        let head = format!("assistant {thought}");
        ensure(lines.any(|line| line.starts_with(&head)), || format!("{thought} was not sent back"))?;
        for call in turn["calls"].as_array().unwrap() {
            let result = lines.next().unwrap_or_default();
            let is_told = result.strip_prefix("result ").is_some_and(|text| !text.trim().is_empty());
            ensure(is_told, || format!("{call} has no result but {result:?}"))?;
        }
    }
    Ok(())
}

fn limits(world: &World, rows: &[Value]) -> Result<(), String> {
    let n_turns = of(rows, "answered").count() as u64;
    ensure(n_turns <= world.n_steps_max, || format!("{n_turns} turns, {} allowed", world.n_steps_max))?;
    let n_circles = calls(rows).iter().filter(|call| call.2 == Some(0)).count();
    ensure(n_circles <= 12, || format!("the same call was made {n_circles} times"))?;
    let n_reminded = of(rows, "turn_ended")
        .filter(|row| row["remark"].as_str().is_some_and(|it| it.contains("times")))
        .count();
    ensure(n_circles < 4 || n_reminded > 0, || "the model was not reminded".to_owned())
}

/// Nobody is asked again what the journal knows an answer to.
fn asked_after_answer(rows: &[Value]) -> Result<(), String> {
    for (number, name, _) in calls(rows) {
        let mut is_answered = false;
        for row in rows.iter().filter(|row| row["call"] == number) {
            match (row["event"].as_str(), row["gate"].as_str()) {
                (Some("gate"), Some("answered")) => is_answered = true,
                (Some("gate"), Some("asked")) if is_answered => {
                    return Err(format!("{name} of call {number} was asked again"));
                }
                (Some("intent"), _) => is_answered = false,
                _ => {}
            }
        }
    }
    Ok(())
}
