//! Functions of scripts that are no verbs, as data: they touch nothing, so they need no door, but they need help too.

use crate::gate::verb::Signature;

/// A constructor, a property, or a function that only handles values.
#[derive(Debug)]
pub struct Function {
    /// `receiver.name(param: type) -> result`; a property has no parentheses. A test compares it with what is
    /// registered.
    pub sig: &'static str,
    /// A summary of one sentence, then what it returns and how it fails.
    pub doc: &'static str,
    /// A line that is evaluated by a test.
    pub example: &'static str,
}

impl Function {
    /// A function.
    pub const fn new(sig: &'static str, doc: &'static str, example: &'static str) -> Function {
        Function { sig, doc, example }
    }

    /// The signature taken apart.
    pub fn signature(&self) -> Signature {
        Signature::parse(self.sig)
    }
}

/// The functions of all bindings.
pub fn all() -> impl Iterator<Item = &'static Function> {
    let systems = super::host::FUNCTIONS.iter().chain(super::fleet::FUNCTIONS).chain(super::stack::FUNCTIONS);
    systems.chain(super::hints::FUNCTIONS).chain(super::prepare::FUNCTIONS)
}
