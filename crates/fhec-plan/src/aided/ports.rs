//! Inputs and outputs of the network, whatever the plan has in between.

use super::Aided;
use crate::{Input, Layout, Output, Plan, PlanHead};
use fhec_math::scale::Scale;

/// The outputs of the network as outputs of a plan that is run in the clear: one element a slot, no scale, no factor.
fn results(aided: &Aided) -> Vec<Output> {
    aided
        .results
        .iter()
        .map(|result| {
            let shape = aided.steps.get(result.step as usize).map_or_else(Vec::new, |step| step.shape.clone());
            let elements: usize = shape.iter().product();
            let slots = elements.next_power_of_two();
            Output {
                name: result.name.clone(),
                layout: Layout::dense(elements, slots, slots),
                shape,
                level: 0,
                scale: Scale::pow2(0),
                factor: 1.0,
                range: result.range,
                error_std: result.error_std,
                postprocess: result.postprocess.clone(),
            }
        })
        .collect()
}

macro_rules! ports {
    ($type:ty) => {
        impl $type {
            /// Rounds between client and server: one, except in client-aided mode.
            pub fn rounds(&self) -> u32 {
                self.aided.as_ref().map_or(1, |aided| aided.rounds)
            }

            /// The inputs of the network.
            pub fn network_inputs(&self) -> &[Input] {
                let count = self.aided.as_ref().map_or(self.inputs.len(), |aided| aided.network_inputs);
                self.inputs.get(..count).unwrap_or(&self.inputs)
            }

            /// The outputs of the network. In client-aided mode they are values of the client, so that layout, level, scale and
            /// factor say nothing.
            pub fn network_outputs(&self) -> Vec<Output> {
                self.aided.as_ref().map_or_else(|| self.outputs.clone(), results)
            }

            /// The round in which input number `index` of the plan is sent.
            pub fn input_round(&self, index: usize) -> u32 {
                self.aided.as_ref().and_then(|a| a.sends.get(index)).map_or(0, |send| send.round)
            }

            /// The round whose answer holds output number `index` of the plan.
            pub fn output_round(&self, index: usize) -> u32 {
                self.aided.as_ref().and_then(|a| a.receives.get(index)).copied().unwrap_or(0)
            }
        }
    };
}

ports!(Plan);
ports!(PlanHead);
