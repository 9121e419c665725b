//! Typed access to a node's attributes. Attributes that nothing reads are an error: ignoring one would
//! change the model silently.

use crate::error::{Problem, refuse};
use crate::proto::{AttributeProto, TensorProto, attribute_type as kind};
use std::cell::RefCell;
use std::collections::BTreeSet;

pub(crate) struct Attributes<'a> {
    all: &'a [AttributeProto],
    read: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(all: &'a [AttributeProto]) -> Self {
        Attributes { all, read: RefCell::default() }
    }

    /// The attribute, checked to be of one of the given types (files of the oldest kind state none).
    fn find(&self, name: &str, types: &[i32]) -> Result<Option<&'a AttributeProto>, Problem> {
        let Some(found) = self.all.iter().find(|a| a.name == name) else { return Ok(None) };
        self.read.borrow_mut().insert(&found.name);
        if !found.ref_attr_name.is_empty() {
            return Err(Problem::new("refers to a parameter outside a function").of(name));
        }
        if found.r#type != 0 && !types.contains(&found.r#type) {
            return Err(Problem::new(format!("has type {}", found.r#type)).of(name));
        }
        Ok(Some(found))
    }

    pub(crate) fn float(&self, name: &str) -> Result<Option<f64>, Problem> {
        Ok(self.find(name, &[kind::FLOAT])?.map(|a| f64::from(a.f.unwrap_or(0.0))))
    }

    pub(crate) fn float_or(&self, name: &str, default: f64) -> Result<f64, Problem> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, Problem> {
        Ok(self.find(name, &[kind::INT])?.map(|a| a.i.unwrap_or(0)))
    }

    pub(crate) fn int_or(&self, name: &str, default: i64) -> Result<i64, Problem> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        Ok(self.int(name)?.map_or(default, |v| v != 0))
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Problem> {
        Ok(self.find(name, &[kind::INTS])?.map(|a| a.ints.clone()))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f64>>, Problem> {
        Ok(self.find(name, &[kind::FLOATS])?.map(|a| a.floats.iter().map(|&v| f64::from(v)).collect()))
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<&'a TensorProto>, Problem> {
        Ok(self.find(name, &[kind::TENSOR])?.and_then(|a| a.t.as_ref()))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        let Some(found) = self.find(name, &[kind::STRING])? else { return Ok(None) };
        match std::str::from_utf8(found.s.as_deref().unwrap_or_default()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Problem::new("is not UTF-8").of(name)),
        }
    }

    /// Marks an attribute as of no consequence here.
    pub(crate) fn ignore(&self, names: &[&str]) {
        for found in self.all.iter().filter(|a| names.contains(&a.name.as_str())) {
            self.read.borrow_mut().insert(&found.name);
        }
    }

    /// Refuses attributes that were not read.
    pub(crate) fn finish(&self, opset: i64) -> Result<(), Problem> {
        let read = self.read.borrow();
        for a in self.all {
            if !read.contains(a.name.as_str()) {
                return Err(Problem::new(format!("is not an attribute of this operator in opset {opset}")).of(&a.name));
            }
        }
        if let Some(twice) = self.all.iter().enumerate().find(|(i, a)| self.all[..*i].iter().any(|b| b.name == a.name))
        {
            refuse!("attribute '{}' is given twice", twice.1.name);
        }
        Ok(())
    }
}
