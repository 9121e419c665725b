//! Who computes which value, and in which round it is there.
//!
//! The server has what takes weights: they are not the client's to know. The client has what is no polynomial, and everything
//! without weights between that and the next layer with some, if it knows the operands anyway: sums of residual branches,
//! concatenations and poolings are exact there, and make what travels smaller.

use fhec_ir::nn::{Activation, Graph, Op, ValueId};

/// Who computes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The server, on ciphertexts.
    Server,
    /// The client, exactly.
    Client,
}

/// Which kind of work an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// No polynomial.
    Nonlinear,
    /// With weights of the model.
    Weights,
    /// Anything else.
    Plain,
}

fn work(graph: &Graph, id: ValueId) -> Work {
    match &graph.node(id).op {
        Op::Activation(Activation::Power { .. }) => Work::Plain,
        Op::Activation(_) | Op::PRelu { .. } | Op::MaxPool(_) | Op::Softmax { .. } => Work::Nonlinear,
        Op::Conv(_) | Op::Dense { .. } | Op::BatchNorm { .. } => Work::Weights,
        Op::AddConst(c) | Op::MulConst(c) if graph.tensor(*c).as_single().is_none() => Work::Weights,
        _ => Work::Plain,
    }
}

/// Sides, rounds, and what passes between.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    pub(crate) of: Vec<Side>,
    /// Round of a value of the server; the first round before which a value of the client is known.
    pub(crate) round: Vec<u32>,
    /// Values of the client that the server needs, with the first round that does; inputs of the network are not among them.
    pub(crate) sent: Vec<(ValueId, u32)>,
    /// Values of the server that the client needs.
    pub(crate) received: Vec<ValueId>,
    /// Rounds in all.
    pub(crate) rounds: u32,
}

impl Sides {
    /// Decides for every value.
    pub(crate) fn of(graph: &Graph) -> Self {
        let users = graph.users();
        let output = |id: ValueId| graph.outputs.iter().any(|o| o.value == id);
        let kind: Vec<Work> = graph.ids().map(|id| work(graph, id)).collect();
        // Whatever is made of the value before the next layer with weights, the client makes.
        let mut bound = vec![false; graph.nodes.len()];
        for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
            let client = |u: &ValueId| match kind[u.index()] {
                Work::Nonlinear => true,
                Work::Plain => bound[u.index()],
                Work::Weights => false,
            };
            bound[id.index()] = !output(id) && !users[id.index()].is_empty() && users[id.index()].iter().all(client);
        }
        let seen = |id: ValueId| users[id.index()].iter().any(|u| kind[u.index()] == Work::Nonlinear);
        let mut of: Vec<Side> = Vec::with_capacity(graph.nodes.len());
        for id in graph.ids() {
            let node = graph.node(id);
            let at_client = |v: &ValueId| of[v.index()] == Side::Client;
            let here = node.inputs.iter().filter(|v| at_client(v)).count();
            let side = match kind[id.index()] {
                _ if matches!(node.op, Op::Input { .. }) => Side::Client,
                Work::Nonlinear => Side::Client,
                Work::Weights => Side::Server,
                Work::Plain if here == node.inputs.len() => Side::Client,
                Work::Plain if here == 0 => Side::Server,
                // Some operands are the client's. The others travel if the result would anyway, or they do, or a product
                // of ciphertexts would have to be taken.
                Work::Plain => {
                    let known = node.inputs.iter().all(|v| at_client(v) || seen(*v));
                    if bound[id.index()] || known || node.op == Op::Mul { Side::Client } else { Side::Server }
                }
            };
            of.push(side);
        }
        Self::with_rounds(graph, &users, of)
    }

    fn with_rounds(graph: &Graph, users: &[Vec<ValueId>], of: Vec<Side>) -> Self {
        let mut round: Vec<u32> = Vec::with_capacity(of.len());
        for id in graph.ids() {
            let step = |v: &ValueId| {
                let crosses = of[id.index()] == Side::Client && of[v.index()] == Side::Server;
                round[v.index()] + u32::from(crosses)
            };
            let own = graph.node(id).inputs.iter().map(step).max().unwrap_or(0);
            round.push(own);
        }
        let sides = &of;
        let other = |id: ValueId, side| users[id.index()].iter().filter(move |u| sides[u.index()] == side);
        let crossing = |id: &ValueId| match of[id.index()] {
            Side::Client => {
                other(*id, Side::Server).next().is_some() && !matches!(graph.node(*id).op, Op::Input { .. })
            }
            Side::Server => other(*id, Side::Client).next().is_some() || graph.outputs.iter().any(|o| o.value == *id),
        };
        let crossing: Vec<ValueId> = graph.ids().filter(crossing).collect();
        let first = |id: ValueId| other(id, Side::Server).map(|u| round[u.index()]).min().unwrap_or(0);
        let client = |id: &&ValueId| of[id.index()] == Side::Client;
        let sent = crossing.iter().filter(client).map(|&id| (id, first(id))).collect();
        let received: Vec<ValueId> = crossing.iter().filter(|id| !client(id)).copied().collect();
        let rounds = received.iter().map(|id| round[id.index()] + 1).max().unwrap_or(0);
        Sides { sent, received, rounds, round, of }
    }
}
