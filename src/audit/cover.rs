//! A selection of specialisations that stands for all.

use std::collections::{HashMap, HashSet};

use crate::kernel::{Def, Variant};

/// Those of `all` that are needed for every combination of three values of three defines that occurs in `all`. What can be
/// wrong with a specialisation is a conflict of few of its defines, while their product is thousands for a matrix kernel.
pub(super) fn covering(all: Vec<Variant>) -> Vec<Variant> {
    let varies = |i: usize| all.iter().any(|v| v.defines.get(i) != all[0].defines.get(i));
    let varying: Vec<bool> =
        (0..all.iter().map(|v| v.defines.len()).max().unwrap_or(0)).map(varies).collect();
    let mut numbers: HashMap<(&str, Def), u64> = HashMap::new();
    let mut seen = HashSet::new();
    all.into_iter()
        .filter(|variant| {
            let defines = variant.defines.iter().zip(&varying).filter(|(_, varies)| **varies);
            let values: Vec<u64> = defines
                .map(|(&define, _)| {
                    let next = numbers.len() as u64;
                    *numbers.entry(define).or_insert(next)
                })
                .collect();
            let mut new = values.is_empty() && seen.insert(u64::MAX);
            for (i, a) in values.iter().enumerate() {
                for (j, b) in values.iter().enumerate().skip(i) {
                    for c in &values[j..] {
                        // Far fewer than 2²⁰ values.
                        new |= seen.insert(a << 40 | b << 20 | c);
                    }
                }
            }
            new
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Needs, defines};

    #[test]
    fn every_three_values_meet() {
        let mut all = Vec::new();
        for i in 0..256u32 {
            let bit = |b: u32| Def::Num(i >> (2 * b) & 3);
            let defines = defines![A = bit(0), B = bit(1), C = bit(2), D = bit(3)];
            all.push(Variant { defines, needs: Needs::default() });
        }
        let some = covering(all.clone());
        assert!(some.len() < all.len(), "{}", some.len());
        let meet = |variants: &[Variant]| -> HashSet<Vec<(&'static str, Def)>> {
            let three = |v: &Variant| {
                (0..4).map(|out| [&v.defines[..out], &v.defines[out + 1..]].concat()).collect::<Vec<_>>()
            };
            variants.iter().flat_map(three).collect()
        };
        assert_eq!(meet(&some), meet(&all));
        assert_eq!(covering(all[..1].to_vec()), all[..1]);
    }
}
