//! Why every bootstrap of a plan is where it is.

use crate::format::{self, Align, Table};
use fhec_plan::verify::Verified;
use fhec_plan::{BootstrapReport, Op, Plan, Reg, Report};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What follows a bootstrap, up to the next ones and to outputs.
struct Follows<'a> {
    /// Levels that it takes.
    levels: usize,
    /// Layers whose values are bootstrapped next, and outputs.
    until: BTreeSet<&'a str>,
}

/// The layer that an instruction belongs to, by the register that it writes.
fn layer(plan: &Plan, reg: Reg) -> &str {
    let made = plan.instructions.iter().find(|i| i.dst == reg);
    made.and_then(|i| plan.layers.get(i.layer.index())).map_or("", |layer| &layer.name)
}

fn follows<'a>(verified: &'a Verified, bootstrap: &BootstrapReport) -> Follows<'a> {
    let plan = verified.plan();
    let mut reached = BTreeSet::from([bootstrap.reg]);
    let (mut lowest, mut until) = (bootstrap.level_out as usize, BTreeSet::new());
    for instruction in &plan.instructions {
        let sources = instruction.op.sources();
        let Some(source) = sources.iter().find(|source| reached.contains(source)) else { continue };
        let end = match &instruction.op {
            Op::Bootstrap { .. } => layer(plan, instruction.dst),
            Op::Output { output, .. } => plan.outputs.get(*output).map_or("", |o| &o.name),
            _ => {
                reached.insert(instruction.dst);
                continue;
            }
        };
        until.insert(end);
        lowest = lowest.min(verified.register(*source).level);
    }
    Follows { levels: bootstrap.level_out as usize - lowest, until }
}

/// Layers whose values are bootstrapped in the best placement without a bootstrap, and are not in the plan.
fn instead<'a>(plan: &'a Plan, bootstrap: &BootstrapReport) -> Vec<&'a str> {
    let own = layer(plan, bootstrap.reg);
    let name = |&reg: &Reg| if layer(plan, reg) == own { "another value of it" } else { layer(plan, reg) };
    let mut layers: Vec<&str> = bootstrap.instead.iter().map(name).collect();
    layers.dedup();
    layers
}

/// The value before a bootstrap, which levels it has and needs, and what the best placement without it would cost.
pub(super) fn table(verified: &Verified, report: &Report) -> String {
    let heads = [
        ("bootstrap", Align::Right),
        ("value of", Align::Left),
        ("level", Align::Right),
        ("time", Align::Right),
        ("why", Align::Left),
        ("the best placement without it", Align::Left),
    ];
    let mut table = Table::new(&heads);
    let count = report.bootstraps.len();
    for (number, b) in report.bootstraps.iter().enumerate() {
        let Follows { levels, until } = follows(verified, b);
        let until: Vec<&str> = until.into_iter().collect();
        let plural = if levels == 1 { "" } else { "s" };
        table.row(vec![
            format!("{} of {count}", number + 1),
            layer(verified.plan(), b.reg).into(),
            format!("{}→{}", b.level_in, b.level_out),
            format::seconds(b.seconds),
            format!("{levels} level{plural} to {}, {} left", until.join(" and "), b.level_in),
            match b.without {
                Some(more) => {
                    let instead = instead(verified.plan(), b).join(" and ");
                    let where_to = if instead.is_empty() {
                        "others go higher".into()
                    } else {
                        format!("bootstraps {instead} instead")
                    };
                    format!("takes {} more, {where_to}", format::seconds(more))
                }
                None => "none: levels run out".into(),
            },
        ]);
    }
    table.render()
}

/// The same for scripts.
pub(super) fn json(verified: &Verified, report: &Report) -> Vec<Value> {
    let of = |b: &BootstrapReport| {
        let Follows { levels, until } = follows(verified, b);
        json!({
            "value_of": layer(verified.plan(), b.reg), "level_in": b.level_in, "level_out": b.level_out,
            "levels_needed": levels, "levels_left": b.level_in, "until": until,
            "seconds": b.seconds, "seconds_more_without": b.without, "instead": instead(verified.plan(), b),
        })
    };
    report.bootstraps.iter().map(of).collect()
}
