//! Which units somebody reads.

use super::{Flow, count, flow};
use fhec_ir::nn::{Graph, Node, Op, ValueId};

/// The live units of every value.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    live: Vec<Vec<bool>>,
}

impl Liveness {
    /// What the outputs depend on. Where units belong together one by one, all of them are live if one is, and every value
    /// keeps at least one unit.
    pub(crate) fn of(graph: &Graph) -> Self {
        let read: Vec<Option<Columns>> = graph.nodes.iter().map(|node| Columns::of(graph, node)).collect();
        let live = graph.nodes.iter().map(|node| vec![false; count(&node.shape)]).collect();
        let mut this = Liveness { live };
        for output in &graph.outputs {
            this.live[output.value.index()].fill(true);
        }
        while this.spread(graph, &read) || this.revive() {}
        this
    }

    /// One step of the propagation; whether anything became live.
    fn spread(&mut self, graph: &Graph, read: &[Option<Columns>]) -> bool {
        let before = self.total();
        for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
            let (node, at) = (graph.node(id), id.index());
            match flow(graph, node) {
                Flow::Keeps => {
                    for source in &node.inputs {
                        for unit in 0..self.live[at].len() {
                            let either = self.live[at][unit] || self.live[source.index()][unit];
                            self.live[at][unit] = either;
                            self.live[source.index()][unit] = either;
                        }
                    }
                }
                Flow::Flattens(k) => {
                    let source = node.inputs[0].index();
                    for unit in 0..self.live[source].len() {
                        let range = unit * k..(unit + 1) * k;
                        let either = self.live[source][unit] || self.live[at][range.clone()].contains(&true);
                        self.live[source][unit] = either;
                        self.live[at][range].fill(either);
                    }
                }
                Flow::Mixes => {
                    let source = node.inputs[0].index();
                    let Some(read) = &read[at] else { continue };
                    let outputs: Vec<usize> = kept(&self.live[at]);
                    for (unit, live) in self.live[source].iter_mut().enumerate() {
                        *live = *live || outputs.iter().any(|&o| read.of[o * read.inputs + unit]);
                    }
                }
                Flow::Opaque => {
                    self.live[at].fill(true);
                    node.inputs.iter().for_each(|v| self.live[v.index()].fill(true));
                }
            }
        }
        self.total() > before
    }

    /// Values without any live unit keep their first; whether there were some.
    fn revive(&mut self) -> bool {
        let mut any = false;
        for units in self.live.iter_mut().filter(|units| !units.is_empty() && !units.contains(&true)) {
            units[0] = true;
            any = true;
        }
        any
    }

    fn total(&self) -> usize {
        self.live.iter().flatten().filter(|&&live| live).count()
    }

    /// Whether some unit is dead.
    pub(crate) fn any_dead(&self) -> bool {
        self.live.iter().flatten().any(|&live| !live)
    }

    /// The live units of a value, in order.
    pub(crate) fn kept(&self, id: ValueId) -> Vec<usize> {
        kept(&self.live[id.index()])
    }
}

fn kept(live: &[bool]) -> Vec<usize> {
    (0..live.len()).filter(|&i| live[i]).collect()
}

/// Which units of its operand each unit of a layer reads.
struct Columns {
    /// `[outputs, inputs]`
    of: Vec<bool>,
    inputs: usize,
}

impl Columns {
    fn of(graph: &Graph, node: &Node) -> Option<Columns> {
        let weight = match &node.op {
            Op::Conv(conv) if conv.groups == 1 => conv.weight,
            Op::Dense { weight, .. } => *weight,
            _ => return None,
        };
        let weight = graph.tensor(weight);
        let taps: usize = weight.shape()[2..].iter().product();
        let of = weight.values().chunks(taps.max(1)).map(|taps| taps.iter().any(|&w| w != 0.0)).collect();
        Some(Columns { of, inputs: weight.shape()[1] })
    }
}
