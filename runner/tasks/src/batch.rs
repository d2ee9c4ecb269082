//! Any number of examples through an entry point that was compiled for a few sizes.

use nt_bundle::{Entry, Variant};

/// The sizes of an input's axis that an entry point was compiled for, from the smallest.
pub fn sizes(entry: &Entry, input: &str, axis: &str) -> Vec<usize> {
    let mut found: Vec<usize> =
        entry.variants.iter().filter_map(|variant| size(variant, input, axis)).filter(|&size| size > 0).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The smallest of some sorted sizes that holds `count`, or the largest there is.
pub fn holding(sizes: &[usize], count: usize) -> Option<usize> {
    sizes.iter().find(|&&size| size >= count).or(sizes.last()).copied()
}

/// The variant in which an input has these sizes.
pub fn variant<'a>(entry: &'a Entry, input: &str, wanted: &[(&str, usize)]) -> Option<&'a Variant> {
    let fits = |variant: &&Variant| wanted.iter().all(|&(axis, wanted)| size(variant, input, axis) == Some(wanted));
    entry.variants.iter().find(fits)
}

fn size(variant: &Variant, input: &str, axis: &str) -> Option<usize> {
    let argument = variant.arguments.iter().find(|argument| argument.name == input)?;
    let at = argument.axes.iter().position(|name| name == axis)?;
    Some(argument.shape[at])
}
