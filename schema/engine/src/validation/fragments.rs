//! Fragments that no operation spreads (section 5.5.1.4). That none contains itself (section 5.5.2.2) is seen while the
//! document is measured (`limits::expand`).

use super::Validator;
use crate::limits::echo;

impl Validator<'_, '_> {
    pub(super) fn unused_fragments(&mut self) {
        if self.fragments.is_empty() {
            return;
        }
        let tree = self.tree;
        let mut is_used = vec![false; tree.definitions.len()];
        for (index, definition) in tree.definitions.iter().enumerate() {
            if definition.kind.is_some() {
                for definition in self.reached(index) {
                    is_used[definition] = true;
                }
            }
        }
        for (index, definition) in tree.definitions.iter().enumerate() {
            let Some(name) = definition.name.filter(|_| definition.kind.is_none()) else { continue };
            // Where a name stands twice the last is spread.
            let is_the_one = self.fragments.get(name.text) == Some(&index);
            if is_the_one && !is_used[index] {
                self.report(&[definition.at], |_| format!("Fragment \"{}\" is never used.", echo(name.text)));
            }
        }
    }
}
