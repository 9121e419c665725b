//! The values of an evaluation, in memory or on disk.

use super::Source;
use super::spill::{Spill, Spilling};
use crate::backend::OpResult;
use crate::error::OpError;
use fhec_ckks::{Ciphertext, Context, Product};
use fhec_math::{Eval, Poly};
use fhec_plan::Verified;
use fhec_plan::stream::{Eviction, Residency, Schedule, Tile, Transfers};
use std::collections::BTreeMap;

/// An element of a register.
#[derive(Debug)]
pub(super) enum Element {
    Ciphertext(Ciphertext),
    /// Before relinearisation.
    Product(Product),
}

/// All values that are alive.
#[derive(Debug)]
pub(super) struct Store {
    residency: Residency,
    values: BTreeMap<u32, Element>,
    /// Where values are on disk.
    places: BTreeMap<u32, (u64, u64)>,
    spill: Spill,
}

impl Store {
    pub(super) fn new(schedule: &Schedule, budget: u64, again: bool, spill: &Spilling) -> Self {
        let residency = Residency::new(schedule, budget, again);
        Store { residency, values: BTreeMap::new(), places: BTreeMap::new(), spill: Spill::new(spill) }
    }

    pub(super) fn peak(&self) -> u64 {
        self.residency.peak()
    }

    pub(super) fn live(&self) -> u64 {
        self.residency.live()
    }

    pub(super) fn transfers(&self) -> Transfers {
        self.residency.transfers()
    }

    /// Sets the room that a tile works in.
    pub(super) fn reserve(&mut self, bytes: u64) {
        self.residency.reserve(bytes);
    }

    /// Brings operands to memory.
    pub(super) fn fetch(
        &mut self,
        verified: &Verified,
        context: &Context,
        schedule: &Schedule,
        group: &[u32],
        source: &mut dyn Source,
    ) -> OpResult<()> {
        let missing: Vec<u32> = group.iter().copied().filter(|&id| !self.residency.is_resident(id)).collect();
        let gone = self.residency.fetch(schedule, group);
        self.evict(gone)?;
        let mut inputs: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
        for id in missing {
            match (self.places.get(&id), schedule.input(id)) {
                (Some(&(place, _)), _) => {
                    let value = self.load(verified, context, schedule, id, place)?;
                    self.values.insert(id, value);
                }
                (None, Some((input, element))) => inputs.entry(input).or_default().push((id, element)),
                (None, None) => return Err(OpError::Kind { expected: "a value", found: "nothing" }),
            }
        }
        for (input, wanted) in inputs {
            let elements: Vec<u32> = wanted.iter().map(|&(_, element)| element).collect();
            let found = source.read(input, &elements)?;
            if found.len() != wanted.len() {
                return Err(OpError::Input("ciphertexts are missing".into()));
            }
            for (&(id, _), value) in wanted.iter().zip(found) {
                self.values.insert(id, Element::Ciphertext(value));
            }
        }
        Ok(())
    }

    /// Lets values go.
    fn evict(&mut self, gone: Vec<Eviction>) -> OpResult<()> {
        for eviction in gone {
            let Some(value) = self.values.remove(&eviction.id) else { continue };
            if eviction.write {
                let place = match &value {
                    Element::Ciphertext(c) => self.spill.write(&[c.c0().data(), c.c1().data()]),
                    Element::Product(p) => self.spill.write(&p.parts().map(Poly::data)),
                };
                self.places.insert(eviction.id, place?);
            }
        }
        Ok(())
    }

    /// Lets all values go, between two tiles.
    pub(super) fn park(&mut self, schedule: &Schedule) -> OpResult<()> {
        let gone = self.residency.clear(schedule);
        self.evict(gone)
    }

    /// Bytes of values on disk.
    pub(super) fn on_disk(&self) -> u64 {
        self.residency.on_disk()
    }

    /// Reads a value back.
    fn load(
        &mut self,
        verified: &Verified,
        context: &Context,
        schedule: &Schedule,
        id: u32,
        place: u64,
    ) -> OpResult<Element> {
        let facts = verified.register(schedule.element(id).0);
        let (level, scale) = (facts.level, facts.scale.clone());
        let poly = || Poly::<Eval>::scratch(context.n(), level + 1);
        let (mut c0, mut c1) = (poly(), poly());
        if facts.degree == 1 {
            self.spill.read(place, &mut [c0.data_mut(), c1.data_mut()])?;
            return Ok(Element::Ciphertext(Ciphertext::from_parts(context, c0, c1, level, scale)));
        }
        let mut c2 = poly();
        self.spill.read(place, &mut [c0.data_mut(), c1.data_mut(), c2.data_mut()])?;
        Ok(Element::Product(Product::from_parts(context, [c0, c1, c2], level, scale)))
    }

    /// A ciphertext that was fetched.
    pub(super) fn ciphertext(&self, id: u32) -> OpResult<&Ciphertext> {
        match self.values.get(&id) {
            Some(Element::Ciphertext(c)) => Ok(c),
            Some(Element::Product(_)) => Err(OpError::Kind { expected: "a ciphertext", found: "a product" }),
            None => Err(OpError::Kind { expected: "a ciphertext", found: "nothing" }),
        }
    }

    /// Takes a value that was fetched out; it is given back before the group is released.
    pub(super) fn lend(&mut self, id: u32) -> OpResult<Element> {
        self.values.remove(&id).ok_or(OpError::Kind { expected: "a value", found: "nothing" })
    }

    /// Gives a value back.
    pub(super) fn give_back(&mut self, id: u32, value: Element) {
        self.values.insert(id, value);
    }

    /// Drops operands that nothing reads any more.
    pub(super) fn release(&mut self, schedule: &Schedule, group: &[u32]) {
        for id in self.residency.release(schedule, group) {
            self.values.remove(&id);
            if let Some(place) = self.places.remove(&id) {
                self.spill.free(place);
            }
        }
    }

    /// Takes in the results of a tile.
    pub(super) fn produce(&mut self, schedule: &Schedule, tile: &Tile, results: Vec<Element>) {
        let reg = schedule.result(tile);
        self.reserve(0);
        let unread = self.residency.produce(schedule, tile);
        for (&element, value) in tile.elements.iter().zip(results) {
            let id = schedule.number(reg, element);
            if unread.binary_search(&id).is_err() {
                self.values.insert(id, value);
            }
        }
    }
}
