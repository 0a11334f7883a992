//! Where a text may be cut: half of a secret is not known for what it is, so secrets are hidden first, by `redact::cut`.

use super::{files, is_for_tests, none};
use syn::visit::{self, Visit};

/// Files that count characters of a text, or look for a place to cut one, and why no secret is halved there.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("bind/facts", "the first digits of an image's id"),
    ("config/migrate", "a file's name is split where its version ends"),
    ("engine/bounded", "texts of a script are repeated: nothing is shown"),
    ("gate/journal/entry", "a record, in which secrets are hidden already"),
    ("redact", "the one place that cuts"),
    ("redact/keys", "lines of a private key are found in it: nothing is cut off"),
    ("screen/visible", "a line in which secrets are hidden already"),
    ("sources", "what stands before a mark under a line of a script, as blanks"),
];

/// Lines of one file on which a text is cut.
#[derive(Default)]
struct Cuts(Vec<usize>);

impl Cuts {
    fn unless_for_tests(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Cuts)) {
        if !attributes.iter().any(is_for_tests) {
            visit(self);
        }
    }
}

/// Whether the expression is what became of the characters of a text: `text.chars().map(…).rev()`.
fn is_characters(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::MethodCall(call) => {
            ["chars", "char_indices"].iter().any(|name| call.method == name) || is_characters(&call.receiver)
        }
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Cuts {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.unless_for_tests(&item.attrs, |cuts| visit::visit_item_mod(cuts, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.unless_for_tests(&item.attrs, |cuts| visit::visit_item_fn(cuts, item));
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let is = |names: &[&str]| names.iter().any(|name| call.method == name);
        let counts = is(&["take", "step_by", "nth"]) && is_characters(&call.receiver);
        let constant = matches!(call.args.first(), Some(syn::Expr::Lit(_))) && !is(&["take"]);
        if (counts && !constant) || is(&["floor_char_boundary", "ceil_char_boundary", "is_char_boundary"]) {
            self.0.push(call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }

    /// The arguments of `format!` and the like are expressions, too.
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let arguments = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = call.parse_body_with(arguments) {
            arguments.iter().for_each(|argument| <Cuts as Visit<'_>>::visit_expr(self, argument));
        }
    }
}

#[test]
fn a_text_of_somebody_else_is_cut_in_one_place_only() {
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    // A file that only tests use has no call of the product.
    for file in files().iter().filter(|file| file.calls.iter().any(|call| !call.test)) {
        let mut cuts = Cuts::default();
        cuts.visit_file(&syn::parse_file(&file.text).unwrap());
        match EXCEPTIONS.iter().find(|(name, _)| *name == file.name) {
            Some((name, _)) if !cuts.0.is_empty() => used.push(*name),
            Some(_) => {}
            None => wrong.extend(cuts.0.iter().map(|line| file.at(*line))),
        }
    }
    none("redact::cut and redact::cut_line hide secrets before they cut", wrong);
    let idle = EXCEPTIONS.iter().filter(|(name, _)| !used.contains(name)).map(|(name, _)| name.to_string());
    none("excepted, and nothing is cut there", idle.collect());
}

#[test]
fn a_cut_is_seen_however_it_is_written() {
    let seen = |code: &str| {
        let mut cuts = Cuts::default();
        cuts.visit_file(&syn::parse_file(&format!("fn f() {{ {code} }}")).unwrap());
        !cuts.0.is_empty()
    };
    for code in [
        "let a = text.chars().take(9).collect::<String>();",
        "let a = text.trim().chars().map(|c| c).take(most).collect::<String>();",
        "let a = format!(\"{}…\", text.chars().rev().take(9).collect::<String>());",
        "let a = &text[..text.floor_char_boundary(9)];",
        "let a = text.char_indices().nth(most);",
    ] {
        assert!(seen(code), "{code}");
    }
    for code in ["let a = lines.iter().take(9);", "let a = text.chars().nth(0);", "let a = self.open.take();"] {
        assert!(!seen(code), "{code}");
    }
}
