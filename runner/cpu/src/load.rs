//! From a file's bytes to a program that is ready to run.

use crate::check::check;
use crate::execute::{Place, Program};
use crate::features;
use crate::file::sections;
use crate::image::Image;
use crate::memory::{ALIGNMENT, Aligned};
use crate::plan::{Allocation, Plan};
use nt_device::{Error, Result, ResultSpec, Signature, TensorSpec};

pub fn load(file: &[u8]) -> Result<Program> {
    let sections = sections(file)?;
    let plan: Plan =
        serde_json::from_slice(sections.plan).map_err(|error| Error::Load(format!("its plan: {error}")))?;
    check(&plan, plan.image.text.min(sections.image.len()), sections.constants.len())?;
    features::check(&plan.requires, &plan.level)?;
    let image = Image::map(sections.image, &plan.image)?;
    let mut temporaries = 0_usize;
    let mut places = Vec::with_capacity(plan.allocations.len());
    for &allocation in &plan.allocations {
        places.push(match allocation {
            Allocation::Argument { index, .. } => Place::Argument(index),
            Allocation::Constant { offset, .. } => Place::Constant(offset),
            Allocation::Result { size } => Place::Result(size),
            Allocation::Temporary { size } => {
                let start = temporaries;
                let end = start.checked_add(size).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
                temporaries = end.ok_or_else(|| Error::Memory("its temporaries".into()))?;
                Place::Temporary(start)
            }
        });
    }
    let results = plan.results.iter().map(|result| ResultSpec {
        spec: TensorSpec::new(result.dtype, result.shape.clone()),
        aliases: result.aliases,
    });
    Ok(Program {
        signature: Signature { results: results.collect(), arguments: plan.arguments },
        from: plan.results.iter().map(|result| result.from).collect(),
        functions: plan.functions.iter().map(|function| function.at).collect(),
        steps: plan.steps,
        places,
        temporaries,
        constants: Aligned::copy_of(sections.constants)?,
        image,
        idle: Default::default(),
        #[cfg(feature = "trace")]
        trace: Default::default(),
        #[cfg(feature = "trace")]
        names: plan.functions.into_iter().map(|function| function.name).collect(),
    })
}
