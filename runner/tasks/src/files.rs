//! Files that are written whole or not at all.

use crate::array::{has_suffix, reason};
use crate::element::convert;
use crate::safetensors::Written;
use crate::tensor::Tensor;
use crate::{Error, Result, npy, npz};
use nt_device::{DType, TensorSpec};
use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that takes the place of `path` once it is complete, and leaves nothing otherwise.
fn replacing(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let (directory, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
    let mut written = Ok(());
    for attempt in 0..100 {
        let temporary = directory.join(format!(".{}.{}-{attempt}", name.to_string_lossy(), std::process::id()));
        let file = match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other,
        };
        written = file.and_then(|file| {
            let mut out = BufWriter::new(file);
            fill(&mut out).and_then(|()| out.flush()).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
                // What cannot be removed either is not what went wrong.
                let _ = fs::remove_file(&temporary);
            })
        });
        break;
    }
    written.map_err(|error| Error::Output(format!("{}: cannot be written ({})", path.display(), reason(&error))))
}

/// Writes tensors to one .npz or .safetensors file, or one .npy file each into a directory. Returns the files.
///
/// numpy's formats know no bfloat16; such tensors are widened to float32 there.
///
/// # Errors
/// [`Error::Output`] where a file cannot be written, [`Error::Archive`] where a tensor's name is none for a file.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<Vec<PathBuf>> {
    if has_suffix(path, ".safetensors") {
        let views = tensors.iter().map(|(name, tensor)| (name, Written { spec: &tensor.spec, bytes: &tensor.bytes }));
        let bytes = ::safetensors::serialize(views, None)
            .map_err(|error| Error::Output(format!("{}: cannot be written ({error})", path.display())))?;
        replacing(path, |out| out.write_all(&bytes))?;
        return Ok(vec![path.into()]);
    }
    let plain: Vec<(&str, Cow<'_, Tensor>)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), plain(tensor))).collect();
    if let Some((name, _)) = plain.iter().find(|(name, _)| name.is_empty() || name.contains(['/', '\0'])) {
        return Err(Error::Archive(format!("a result's name, {name:?}, is none for a file")));
    }
    if has_suffix(path, ".npz") {
        let tensors = plain.iter().map(|(name, tensor)| (*name, &tensor.spec, tensor.bytes.as_slice()));
        replacing(path, |out| npz::write(out, tensors))?;
        return Ok(vec![path.into()]);
    }
    let mut written = Vec::new();
    for (name, tensor) in &plain {
        let file = path.join(format!("{name}.npy"));
        write_npy(&file, &tensor.spec, &tensor.bytes)?;
        written.push(file);
    }
    Ok(written)
}

/// Writes one tensor to a .npy file.
///
/// # Errors
/// As [`write`].
pub fn write_npy(path: &Path, spec: &TensorSpec, bytes: &[u8]) -> Result<()> {
    replacing(path, |out| npy::write(out, spec, bytes))
}

fn plain(tensor: &Tensor) -> Cow<'_, Tensor> {
    if tensor.spec.dtype != DType::BF16 {
        return Cow::Borrowed(tensor);
    }
    let bytes = convert(DType::BF16, tensor.bytes.clone(), DType::F32).expect("every bfloat16 is a float32");
    let spec = TensorSpec::new(DType::F32, tensor.spec.shape.clone());
    Cow::Owned(Tensor { axes: tensor.axes.clone(), spec, bytes })
}
