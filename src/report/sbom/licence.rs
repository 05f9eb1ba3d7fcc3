//! Writes licences as SPDX expressions.
//! Stage: report (pure). Input: licences of nixpkgs. Output: [`Declared`].

use std::collections::BTreeMap;

use super::facts::LicenceFacts;

/// A package's licences in one expression (SPDX 2.3, annex D).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The expression, if any licence is known.
    pub expression: Option<String>,
    /// The licences that SPDX has no identifier for, by the identifiers in this expression
    /// (`LicenseRef-…`).
    pub own: BTreeMap<String, OwnLicence>,
}

/// A licence that SPDX has no identifier for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLicence {
    /// The name.
    pub name: String,
    /// The address of the text.
    pub url: Option<String>,
}

impl Declared {
    /// Joins the licences of one package with `AND`. nixpkgs does not say whether all licences of a
    /// list apply, or one of them by choice: a user who follows all of them is right in both cases.
    pub fn of(licences: &[LicenceFacts]) -> Self {
        let mut declared = Self::default();
        let mut terms: Vec<String> = Vec::new();
        for licence in licences {
            let Some(term) = declared.term(licence) else { continue };
            if !terms.contains(&term) {
                terms.push(term);
            }
        }
        if !terms.is_empty() {
            declared.expression = Some(terms.join(" AND "));
        }
        declared
    }

    fn term(&mut self, licence: &LicenceFacts) -> Option<String> {
        let LicenceFacts { spdx, name, url } = licence;
        if let Some(text) = spdx {
            if ::spdx::license_id(text).is_some_and(|id| id.name == text) {
                return Some(text.clone());
            }
            if let Ok(expression) = ::spdx::Expression::parse(text) {
                // An expression with an operator needs parentheses.
                let is_one = expression.requirements().count() == 1;
                return Some(if is_one { text.clone() } else { format!("({text})") });
            }
        }
        let name = name.as_ref().or(spdx.as_ref()).filter(|name| !name.trim().is_empty())?;
        let id = format!("LicenseRef-{}", identifier(name));
        let own = OwnLicence { name: name.clone(), url: url.clone() };
        self.own.entry(id.clone()).or_insert(own);
        Some(id)
    }
}

/// Replaces each character that SPDX identifiers can't have by `-`. Letters, digits and `.` stay.
pub fn identifier(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    text.chars().map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: &str) -> LicenceFacts {
        LicenceFacts { spdx: Some(id.to_owned()), ..LicenceFacts::default() }
    }

    #[test]
    fn licences_become_one_expression() {
        let named = |name: &str| LicenceFacts { name: Some(name.to_owned()), ..Default::default() };
        for (licences, expected) in [
            (vec![], None),
            (vec![known("MIT")], Some("MIT")),
            (vec![known("MIT"), known("MIT"), known("0BSD")], Some("MIT AND 0BSD")),
            (vec![known("GPL-2.0")], Some("GPL-2.0")),
            (vec![known("MIT OR Apache-2.0"), known("ISC")], Some("(MIT OR Apache-2.0) AND ISC")),
            (vec![known("none at all")], Some("LicenseRef-none-at-all")),
            (vec![named("Unfree (own)")], Some("LicenseRef-Unfree--own-")),
            (vec![LicenceFacts::default()], None),
        ] {
            assert_eq!(Declared::of(&licences).expression.as_deref(), expected);
        }
    }
}
