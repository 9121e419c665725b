//! Rotations and conjugation, single and hoisted.

use fhec_math::{Automorphism, conjugation_element, galois_element};

use super::Evaluator;
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::keys::SwitchingKey;
use crate::keyswitch::{Decomposed, Digits, Switch, decompose, switch};

/// Bytes of digits that stay in the cache from one rotation to the next.
const CACHED: usize = 8 << 20;

/// A ciphertext whose digits have been made once, for many rotations.
#[derive(Clone, Debug)]
pub struct HoistedCiphertext {
    /// The ciphertext itself.
    pub(crate) ciphertext: Ciphertext,
    /// Digits of its second part.
    pub(crate) digits: Decomposed,
}

impl HoistedCiphertext {
    /// The ciphertext that was hoisted.
    pub fn ciphertext(&self) -> &Ciphertext {
        &self.ciphertext
    }

    /// Digits of its second part.
    pub fn digits(&self) -> &Decomposed {
        &self.digits
    }
}

impl Evaluator {
    /// Rotates the slots to the left: slot `i` of the result is slot `i + steps` of the input.
    ///
    /// # Errors
    /// [`CkksError::NoGaloisKey`](crate::CkksError::NoGaloisKey), [`CkksError::KeyLevel`](crate::CkksError::KeyLevel), [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn rotate(&self, a: &Ciphertext, steps: i64) -> Result<Ciphertext> {
        let element = galois_element(steps, self.context.log_n());
        if element == 1 {
            self.check("rotate", a)?;
            return Ok(a.clone());
        }
        self.automorphism("rotate", a, element)
    }

    /// Complex conjugate of every slot.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    pub fn conjugate(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.automorphism("conjugate", a, conjugation_element(self.context.log_n()))
    }

    /// An automorphism, by its own key or as two.
    pub(crate) fn automorphism(&self, op: &'static str, a: &Ciphertext, element: u64) -> Result<Ciphertext> {
        self.check(op, a)?;
        if let Some([first, second]) = self.factors(element) {
            return self.automorphism(op, &self.automorphism(op, a, first)?, second);
        }
        let key = self.galois_key(op, element, a.level)?;
        let digits = Digits::new(&self.context, &a.c1, a.level);
        let rotated = self.switch_rotations(a, digits, &[(key, element)])?;
        Ok(rotated.into_iter().next().expect("one key gives one rotation"))
    }

    /// Automorphisms of a ciphertext, given the digits of its second part.
    fn switch_rotations(
        &self,
        a: &Ciphertext,
        digits: Digits<'_>,
        keys: &[(&SwitchingKey, u64)],
    ) -> Result<Vec<Ciphertext>> {
        let with = |&(key, element)| {
            let automorphism = Some(Automorphism::try_get(self.context.log_n(), element)?);
            Ok((key, Switch { add: [Some(&a.c0), None], automorphism, ..Switch::default() }))
        };
        let switches = keys.iter().map(with).collect::<Result<Vec<_>>>()?;
        let switched = switch(&self.context, digits, a.level, &switches, false)?;
        let rotated = switched.into_iter().map(|[c0, c1]| {
            let scale = a.scale.clone();
            Ciphertext { c0, c1, level: a.level, scale, id: a.id }
        });
        Ok(rotated.collect())
    }

    /// Makes the digits once, for several rotations of the same ciphertext.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn hoist(&self, a: &Ciphertext) -> Result<HoistedCiphertext> {
        self.check("hoist", a)?;
        let digits = decompose(&self.context, &a.c1, a.level);
        Ok(HoistedCiphertext { ciphertext: a.clone(), digits })
    }

    /// [`rotate`](Self::rotate) of a hoisted ciphertext; the same result.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    pub fn rotate_hoisted(&self, a: &HoistedCiphertext, steps: i64) -> Result<Ciphertext> {
        let mut rotated = self.rotate_hoisted_all(a, &[steps])?;
        Ok(rotated.pop().expect("one rotation was asked for"))
    }

    /// [`rotate_hoisted`](Self::rotate_hoisted) by several steps at once; the same results. Digits that do not stay in the cache
    /// are read once for all of them, which is faster; where they do, rotations go one by one, so that what each makes does too.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    pub fn rotate_hoisted_all(&self, a: &HoistedCiphertext, steps: &[i64]) -> Result<Vec<Ciphertext>> {
        let op = "rotate_hoisted";
        let input = &a.ciphertext;
        self.check(op, input)?;
        let elements: Vec<u64> = steps.iter().map(|&k| galois_element(k, self.context.log_n())).collect();
        let keys = elements.iter().filter(|&&element| element != 1);
        // Of two automorphisms that make one the first is hoisted.
        let keys = keys.map(|&element| self.factors(element).map_or(element, |[first, _]| first));
        let keys = keys.map(|element| Ok((self.galois_key(op, element, input.level)?, element)));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let together = if a.digits.bytes() <= CACHED { 1 } else { keys.len().max(1) };
        let mut rotated = Vec::with_capacity(keys.len());
        for keys in keys.chunks(together) {
            rotated.extend(self.switch_rotations(input, Digits::Decomposed(&a.digits), keys)?);
        }
        let mut rotated = rotated.into_iter();
        let mut next = || rotated.next().expect("every rotation but that by nothing was made");
        let finish = |&element: &u64| match self.factors(element) {
            _ if element == 1 => Ok(input.clone()),
            Some([_, second]) => self.automorphism(op, &next(), second),
            None => Ok(next()),
        };
        elements.iter().map(finish).collect()
    }
}
