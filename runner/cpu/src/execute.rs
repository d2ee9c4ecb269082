//! Running a program: its memory, and its steps one after the other.

use crate::convolution::convolution;
use crate::copy::transposed;
use crate::dot::dot;
use crate::image::Image;
use crate::kernel::{self, Comparator, KernelArg};
use crate::memory::{self, Aligned, Data};
use crate::plan::{Slice, Step};
use crate::sort::sort;
use crate::top_k::top_k;
use nt_device::{Arg, Buffer, Executable, Result, Signature};
use std::slice;
use std::sync::{Mutex, PoisonError};

/// A loaded program.
pub struct Program {
    pub signature: Signature,
    /// Where each result is once the steps have run.
    pub from: Vec<Slice>,
    pub steps: Vec<Step>,
    /// Where each allocation is to be found.
    pub places: Vec<Place>,
    /// Offsets of functions in the image.
    pub functions: Vec<usize>,
    /// Bytes of memory for temporaries.
    pub temporaries: usize,
    pub constants: Aligned,
    pub image: Image,
    /// Memory for temporaries that no call uses now: one piece for each of the calls that were ever under way at once.
    pub idle: Mutex<Vec<Aligned>>,
    #[cfg(feature = "trace")]
    pub trace: crate::trace::Trace,
    #[cfg(feature = "trace")]
    pub names: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In the argument with this number.
    Argument(usize),
    /// At this offset of the constants.
    Constant(usize),
    /// In new memory of this size.
    Result(usize),
    /// At this offset of the temporaries.
    Temporary(usize),
}

/// The memory of one call. What it owns stays where it is while the steps run.
struct Memory {
    /// The address of each allocation.
    addresses: Vec<*mut u8>,
    /// By allocation, what is the call's own.
    owned: Vec<Option<Aligned>>,
}

impl Program {
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    fn memory(&self, args: Vec<Arg<'_>>, temporaries: &Aligned, borrowed: &mut Vec<Buffer>) -> Result<Memory> {
        let mut memory = Memory { addresses: Vec::with_capacity(self.places.len()), owned: Vec::new() };
        let mut args: Vec<Option<Arg<'_>>> = args.into_iter().map(Some).collect();
        for &place in &self.places {
            let mut owned = None;
            let address = match place {
                Place::Constant(offset) => self.constants.at().wrapping_add(offset),
                Place::Temporary(offset) => temporaries.at().wrapping_add(offset),
                Place::Result(size) => owned.insert(Aligned::new(size)?).at(),
                Place::Argument(index) => {
                    let arg = args[index].take().expect("no two allocations are one argument");
                    if self.signature.results.iter().any(|result| result.aliases == Some(index)) {
                        owned.insert(taken(arg)?).at()
                    } else {
                        let address = memory::of(arg.buffer())?.bytes().as_ptr().cast_mut();
                        // Given up, though nothing takes it over: it lives until the call is done.
                        if let Arg::Donate(buffer) = arg {
                            borrowed.push(buffer);
                        }
                        address
                    }
                }
            };
            memory.addresses.push(address);
            memory.owned.push(owned);
        }
        Ok(memory)
    }

    fn results(&self, memory: &mut Memory) -> Result<Vec<Buffer>> {
        let mut results = Vec::with_capacity(self.from.len());
        for (index, (&from, result)) in self.from.iter().zip(&self.signature.results).enumerate() {
            let whole = memory.owned[from.allocation].as_ref().is_some_and(|owned| owned.bytes().len() == from.size);
            let last = self.from[index + 1..].iter().all(|other| other.allocation != from.allocation);
            let data = if whole && last {
                memory.owned[from.allocation].take().expect("it is the call's own")
            } else {
                // SAFETY: checked to lie within its allocation, which nothing writes any more.
                Aligned::copy_of(unsafe { slice::from_raw_parts(memory.at(from), from.size) })?
            };
            results.push(Buffer::new(result.spec.clone(), Data::Owned(data)));
        }
        Ok(results)
    }
}

/// The argument's memory, or a copy of it where that belongs to someone else.
fn taken(arg: Arg<'_>) -> Result<Aligned> {
    match arg {
        Arg::Borrow(buffer) => Aligned::copy_of(memory::of(buffer)?.bytes()),
        Arg::Donate(buffer) => match buffer.into_data::<Data>() {
            Ok((_, Data::Owned(owned))) => Ok(owned),
            Ok((_, Data::Shared(bytes))) => Aligned::copy_of(&bytes),
            Err(buffer) => Aligned::copy_of(memory::of(&buffer)?.bytes()),
        },
    }
}

impl Executable for Program {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, args: Vec<Arg<'_>>) -> Result<Vec<Buffer>> {
        self.signature.check(&args)?;
        let _awake = nt_kernels::awake();
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let temporaries = idle.map_or_else(|| Aligned::new(self.temporaries), Ok)?;
        // Donated buffers that nothing takes over, and borrowed ones through `args`, outlive the steps.
        let mut kept = Vec::new();
        let results = self.memory(args, &temporaries, &mut kept).and_then(|mut memory| {
            // SAFETY: the program was checked when it was loaded; its memory is the call's own, or is only read.
            unsafe { Run { program: self, memory: &memory, args: Vec::new() }.steps(&self.steps)? };
            self.results(&mut memory)
        });
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(temporaries);
        results
    }
}

impl Memory {
    /// The address of a slice, which was checked.
    fn at(&self, slice: Slice) -> *mut u8 {
        self.addresses[slice.allocation].wrapping_add(slice.offset)
    }
}

struct Run<'a> {
    program: &'a Program,
    memory: &'a Memory,
    /// Arguments of the kernel in work, kept for their room.
    args: Vec<KernelArg>,
}

impl Run<'_> {
    /// # Safety
    /// Steps of a checked program, in the memory of one call of it.
    unsafe fn steps(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            #[cfg(feature = "trace")]
            let began = crate::trace::now();
            // SAFETY: handed on to the caller.
            unsafe { self.step(step)? };
            #[cfg(feature = "trace")]
            self.program.trace.add(step, &self.program.names, crate::trace::now().saturating_sub(began));
        }
        Ok(())
    }

    fn function(&self, index: usize) -> *const u8 {
        self.program.image.address(self.program.functions[index])
    }

    /// # Safety
    /// As for [`Run::steps`].
    unsafe fn step(&mut self, step: &Step) -> Result<()> {
        let memory = self.memory;
        // SAFETY: slices lie within their allocations, are written by one step at a time, and hold what the steps say of
        // them, as was checked. Functions are what the plan says, which the builder vouches for.
        unsafe {
            match step {
                Step::Kernel(step) => {
                    self.args.clear();
                    let slices = step.arguments.iter().chain(&step.results);
                    self.args.extend(slices.map(|&slice| KernelArg { data: memory.at(slice), size: slice.size }));
                    kernel::run(self.function(step.function), step.workgroups, &self.args)
                }
                Step::Copy(step) => {
                    match &step.transposed {
                        Some(order) => transposed(order, memory.at(step.from), memory.at(step.to)),
                        None => memory.at(step.from).copy_to(memory.at(step.to), step.from.size),
                    }
                    Ok(())
                }
                Step::While(step) => {
                    if let Some(trips) = step.trips {
                        for _ in 0..trips {
                            self.steps(&step.body)?;
                        }
                        return Ok(());
                    }
                    loop {
                        self.steps(&step.condition)?;
                        if memory.at(step.predicate).read() == 0 {
                            return Ok(());
                        }
                        self.steps(&step.body)?;
                    }
                }
                Step::Conditional(step) => {
                    let index = memory.at(step.index);
                    let last = step.branches.len() - 1;
                    let chosen = if step.index.size == 1 {
                        usize::from(index.read() == 0)
                    } else {
                        usize::try_from(index.cast::<i32>().read()).unwrap_or(last)
                    };
                    self.steps(&step.branches[chosen.min(last)])
                }
                Step::Sort(step) => {
                    let inputs: Vec<*mut u8> = step.inputs.iter().map(|input| memory.at(input.at)).collect();
                    sort(step, &inputs, Comparator::new(self.function(step.comparator)));
                    Ok(())
                }
                Step::TopK(step) => {
                    let values = slice::from_raw_parts(memory.at(step.values).cast(), step.values.size / 4);
                    let largest = slice::from_raw_parts_mut(memory.at(step.largest).cast(), step.largest.size / 4);
                    let indices = slice::from_raw_parts_mut(memory.at(step.indices).cast(), step.indices.size / 4);
                    top_k(step.length, step.k, values, largest, indices);
                    Ok(())
                }
                Step::Dot(step) => dot(step, memory.at(step.lhs.at), memory.at(step.rhs.at), memory.at(step.out.at)),
                Step::Convolution(step) => {
                    convolution(step, memory.at(step.x.at), memory.at(step.kernel.at), memory.at(step.out.at))
                }
            }
        }
    }
}
