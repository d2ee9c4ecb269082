//! Tensors in the host's memory.

use nt_device::{DType, TensorSpec};

/// A tensor with named axes, in row-major order, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub axes: Vec<String>,
    pub spec: TensorSpec,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(axes: &[&str], shape: &[usize], values: &[f32]) -> Tensor {
        Tensor {
            axes: axes.iter().map(|&axis| axis.into()).collect(),
            spec: TensorSpec::new(DType::F32, shape),
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    pub fn size(&self, axis: &str) -> Option<usize> {
        self.axes.iter().position(|name| name == axis).map(|at| self.spec.shape[at])
    }

    /// The same with its axes in another order; None where `axes` are not the tensor's own.
    pub fn ordered<S: AsRef<str>>(&self, axes: &[S]) -> Option<Tensor> {
        let places: Vec<usize> =
            axes.iter().map(|axis| self.axes.iter().position(|name| name == axis.as_ref())).collect::<Option<_>>()?;
        let mut seen = vec![false; self.axes.len()];
        for &place in &places {
            if std::mem::replace(&mut seen[place], true) {
                return None;
            }
        }
        if places.len() != self.axes.len() {
            return None;
        }
        let axes: Vec<String> = axes.iter().map(|axis| axis.as_ref().into()).collect();
        if places.iter().enumerate().all(|(at, &place)| at == place) {
            return Some(Tensor { axes, ..self.clone() });
        }
        let width = self.spec.dtype.size();
        let mut strides = vec![width; self.axes.len()];
        for axis in (1..strides.len()).rev() {
            strides[axis - 1] = strides[axis] * self.spec.shape[axis];
        }
        let shape: Vec<usize> = places.iter().map(|&place| self.spec.shape[place]).collect();
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut index = vec![0; shape.len()];
        if !shape.contains(&0) {
            loop {
                let at: usize = index.iter().zip(&places).map(|(i, &place)| i * strides[place]).sum();
                bytes.extend_from_slice(&self.bytes[at..at + width]);
                let Some(axis) = (0..shape.len()).rev().find(|&axis| index[axis] + 1 < shape[axis]) else { break };
                index[axis] += 1;
                index[axis + 1..].fill(0);
            }
        }
        Some(Tensor { axes, spec: TensorSpec::new(self.spec.dtype, shape), bytes })
    }

    /// The numbers of a float32 tensor.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        if self.spec.dtype != DType::F32 {
            return None;
        }
        Some(self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_reordered_by_name() {
        let x = Tensor::f32(&["a", "b", "c"], &[2, 1, 3], &[0., 1., 2., 3., 4., 5.]);
        let y = x.ordered(&["c", "a", "b"]).unwrap();
        assert_eq!(y.spec.shape, [3, 2, 1]);
        assert_eq!(y.to_f32().unwrap(), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(y.ordered(&["a", "b", "c"]).unwrap(), x);
        assert_eq!(x.ordered(&["a", "b"]), None);
        assert_eq!(x.ordered(&["a", "a", "b"]), None);
        assert_eq!(x.ordered(&["a", "b", "d"]), None);
    }

    #[test]
    fn tensors_without_axes_or_elements_have_an_order_too() {
        let scalar = Tensor::f32(&[], &[], &[1.5]);
        assert_eq!(scalar.ordered::<&str>(&[]).unwrap(), scalar);
        let empty = Tensor::f32(&["a", "b"], &[0, 2], &[]);
        assert_eq!(empty.ordered(&["b", "a"]).unwrap().spec.shape, [2, 0]);
    }
}
