//! Programs on the device.

use crate::abi::{self, Args, Function, Opaque, View};
use crate::client::{Inner, Tensor, element_type};
use crate::compile;
use crate::error::{Error, Result};
use nt_device::{Arg, Buffer, DType, Executable, Signature, TensorSpec};
use std::sync::Arc;

/// A program that the plugin has loaded.
pub(crate) struct Loaded {
    client: Arc<Inner>,
    raw: Opaque,
}

// SAFETY: the API's executables may be used from any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        // Nothing is left to do where this fails.
        let _ = self.client.plugin.call(Function::LoadedExecutableDestroy, &mut Args::new(abi::One { it: self.raw }));
    }
}

impl Loaded {
    pub fn compile(client: &Arc<Inner>, code: &[u8], settings: &[(String, String)]) -> Result<Loaded> {
        let program = compile::program(code);
        let options = compile::options(settings);
        let mut args = Args::new(abi::ClientCompile {
            client: client.raw,
            program: &program,
            options: View::of(&options),
            executable: std::ptr::null_mut(),
        });
        client.plugin.call(Function::ClientCompile, &mut args)?;
        Ok(Loaded { client: Arc::clone(client), raw: args.fields.executable })
    }

    pub fn deserialize(client: &Arc<Inner>, serialized: &[u8]) -> Result<Loaded> {
        let serialized = without_ifrt_header(serialized);
        let mut args = Args::new(abi::Deserialize {
            client: client.raw,
            serialized: View::of(serialized),
            executable: std::ptr::null_mut(),
        });
        client.plugin.call(Function::ExecutableDeserializeAndLoad, &mut args)?;
        Ok(Loaded { client: Arc::clone(client), raw: args.fields.executable })
    }

    pub fn serialize(&self) -> Result<Vec<u8>> {
        self.with_executable(|executable| compile::serialize(&self.client.plugin, executable))
    }

    /// The program without its device: a reference of its own, which is given back afterwards.
    fn with_executable<T>(&self, use_it: impl FnOnce(Opaque) -> Result<T>) -> Result<T> {
        let plugin = &self.client.plugin;
        let mut args = Args::new(abi::OneToOne { it: self.raw, out: std::ptr::null_mut() });
        plugin.call(Function::LoadedExecutableGetExecutable, &mut args)?;
        let executable = args.fields.out;
        let result = use_it(executable);
        let destroyed = plugin.call(Function::ExecutableDestroy, &mut Args::new(abi::One { it: executable }));
        result.and_then(|result| destroyed.map(|()| result))
    }

    /// Types (the API's numbers) and shapes of the results.
    fn results(&self) -> Result<Vec<(i32, Vec<i64>)>> {
        let plugin = &self.client.plugin;
        self.with_executable(|executable| {
            let mut number = Args::new(abi::OneToNumber { it: executable, number: 0 });
            plugin.call(Function::ExecutableNumOutputs, &mut number)?;
            let count = number.fields.number;
            let mut types = Args::new(abi::OneToList::<i32> { it: executable, items: std::ptr::null(), len: 0 });
            plugin.call(Function::ExecutableOutputElementTypes, &mut types)?;
            let mut shapes = Args::new(abi::OutputDimensions {
                executable,
                outputs: 0,
                dims: std::ptr::null(),
                ranks: std::ptr::null(),
            });
            plugin.call(Function::ExecutableOutputDimensions, &mut shapes)?;
            if types.fields.len != count || shapes.fields.outputs != count {
                return Err(Error::new("the plugin contradicts itself about the number of results"));
            }
            let mut dims = shapes.fields.dims;
            let result = (0..count).map(|index| {
                // SAFETY: the plugin gives a type and a rank for each result, and as many sizes as the ranks say.
                unsafe {
                    let rank = *shapes.fields.ranks.add(index);
                    let shape = if rank == 0 { Vec::new() } else { std::slice::from_raw_parts(dims, rank).to_vec() };
                    dims = dims.add(rank);
                    (*types.fields.items.add(index), shape)
                }
            });
            Ok(result.collect())
        })
    }

    /// Holds the program against its signature as far as the API shows it: the results.
    pub fn checked(self, signature: &Signature) -> nt_device::Result<Program> {
        let found = self.results().map_err(Error::load)?;
        let wrong = |what: String| Err(nt_device::Error::Load(format!("it is of another program: {what}")));
        if found.len() != signature.results.len() {
            return wrong(format!("it has {} results, not {}", found.len(), signature.results.len()));
        }
        for (index, ((element, shape), wanted)) in found.iter().zip(&signature.results).enumerate() {
            let same = *element == element_type(wanted.spec.dtype)
                && shape.iter().copied().eq(wanted.spec.shape.iter().map(|&size| size as i64));
            if !same {
                return wrong(format!("result {index} is {}, not {}", shown(*element, shape), wanted.spec));
            }
        }
        Ok(Program { loaded: self, signature: signature.clone() })
    }
}

/// What the plugin serialized. jax writes a header of its own in front, for its IFRT layer: its length as a varint, and a
/// message whose field 2 is the runtime's name.
fn without_ifrt_header(serialized: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"\x12\x09pjrt_ifrt";
    let mut length = 0_usize;
    for (index, &byte) in serialized.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let rest = &serialized[index + 1..];
            return match rest.split_at_checked(length) {
                // Field 1, the header's version, comes before: a tag and a varint of a byte.
                Some((header, program)) if header.get(2..).is_some_and(|after| after.starts_with(NAME)) => program,
                _ => serialized,
            };
        }
    }
    serialized
}

fn shown(element: i32, shape: &[i64]) -> String {
    match DType::ALL.into_iter().find(|&dtype| element_type(dtype) == element) {
        Some(dtype) => TensorSpec::new(dtype, shape.iter().map(|&size| size as usize).collect::<Vec<_>>()).to_string(),
        None => format!("of type {element}, {shape:?}"),
    }
}

/// A program with its signature.
pub(crate) struct Program {
    loaded: Loaded,
    signature: Signature,
}

impl Executable for Program {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Returns once the program is queued. Failures on the device are reported when a result is downloaded.
    fn run(&self, args: Vec<Arg<'_>>) -> nt_device::Result<Vec<Buffer>> {
        self.signature.check(&args)?;
        let client = &self.loaded.client;
        let mut inputs = Vec::with_capacity(args.len());
        // The compiled program may take any argument that aliases a result; all but the given-up ones must stay.
        let mut kept = Vec::new();
        for (index, arg) in args.iter().enumerate() {
            inputs.push(client.tensor(arg.buffer())?.raw);
            if matches!(arg, Arg::Borrow(_)) {
                kept.push(index as i64);
            }
        }
        let options = Args::new(abi::ExecuteOptions {
            transfers: [0; 4],
            launch: 0,
            not_donated: abi::List { items: kept.as_ptr(), len: kept.len() },
        });
        let mut outputs: Vec<Opaque> = vec![std::ptr::null_mut(); self.signature.results.len()];
        let input_lists = [inputs.as_ptr()];
        let output_lists = [outputs.as_mut_ptr()];
        let mut call = Args::new(abi::Execute {
            executable: self.loaded.raw,
            options: &options,
            arguments: input_lists.as_ptr(),
            devices: 1,
            argument_count: inputs.len(),
            outputs: output_lists.as_ptr(),
            complete: std::ptr::null_mut(),
            device: std::ptr::null_mut(),
        });
        client.plugin.call(Function::LoadedExecutableExecute, &mut call).map_err(Error::run)?;
        // Donated buffers are empty by now, and are destroyed with `args`.
        let results = outputs.into_iter().zip(&self.signature.results);
        Ok(results.map(|(raw, result)| Buffer::new(result.spec.clone(), Tensor::new(client, raw))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::without_ifrt_header;

    #[test]
    fn only_jaxs_header_is_taken_off() {
        let header = b"\x08\x03\x12\x09pjrt_ifrt*\x00";
        let written = [&[header.len() as u8], &header[..], b"program"].concat();
        assert_eq!(without_ifrt_header(&written), b"program");
        let long = [&header[..], &[0; 300]].concat();
        let length = [(long.len() & 0x7f) as u8 | 0x80, (long.len() >> 7) as u8];
        assert_eq!(without_ifrt_header(&[&length[..], &long, b"program"].concat()), b"program");
        for other in [&b""[..], b"program", b"\x80\x80\x80\x80\x80", b"\xff\xff\xff\x7f", &written[..10]] {
            assert_eq!(without_ifrt_header(other), other);
        }
    }
}
