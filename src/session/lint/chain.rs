//! `a.b(c)[d]` taken apart.

use rhai::{ASTFlags, Expr, FnCallExpr, Position};

/// A part of `a.b(c)[d]` after the first.
pub enum Part<'a> {
    /// `.b(c)`.
    Method(&'a FnCallExpr, Position),
    /// `.b`.
    Property(&'a str, Position),
    /// `[d]`.
    Index(&'a Expr),
}

/// What a chain begins with, and its parts in order.
pub fn taken_apart(value: &Expr) -> (&Expr, Vec<Part<'_>>) {
    let mut parts = Vec::new();
    let (root, mut rest, mut is_dot, mut ends) = match value {
        Expr::Dot(pair, flags, _) => (&pair.lhs, &pair.rhs, true, flags.intersects(ASTFlags::BREAK)),
        Expr::Index(pair, flags, _) => (&pair.lhs, &pair.rhs, false, flags.intersects(ASTFlags::BREAK)),
        value => return (value, parts),
    };
    loop {
        // The last index may itself be a chain, which is none of this one.
        let (part, next) = match rest {
            Expr::Dot(pair, flags, _) if is_dot || !ends => (&pair.lhs, Some((&pair.rhs, true, *flags))),
            Expr::Index(pair, flags, _) if is_dot || !ends => (&pair.lhs, Some((&pair.rhs, false, *flags))),
            rest => (rest, None),
        };
        parts.push(match part {
            Expr::MethodCall(call, at) if is_dot => Part::Method(call, *at),
            Expr::Property(property, at) if is_dot => Part::Property(&property.2, *at),
            index => Part::Index(index),
        });
        let Some((after, dot, flags)) = next else { return (root, parts) };
        (rest, is_dot, ends) = (after, dot, flags.intersects(ASTFlags::BREAK));
    }
}
