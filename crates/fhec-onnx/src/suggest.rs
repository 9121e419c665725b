//! Why an operator is not supported, and what to do instead.

/// Reason and suggested rewrite for an operator that has no translation.
pub(crate) fn unsupported(operator: &str) -> (&'static str, &'static str) {
    match operator {
        "Abs" | "Sign" | "Shrink" | "ThresholdedRelu" | "Hardmax" => (
            "the function jumps or has a kink, and no polynomial is offered for it",
            "replace it by a supported activation (Relu, LeakyRelu, Swish, a square) and fine-tune",
        ),
        "Sin" | "Cos" | "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh" | "Asinh" | "Acosh" | "Atanh" | "Log"
        | "Sqrt" | "Reciprocal" | "Floor" | "Ceil" | "Round" | "Mod" | "IsNaN" | "IsInf" => (
            "the function of an encrypted value is not available",
            "compute it before encryption, fold it into constants, or replace it by a supported activation",
        ),
        "LayerNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "RMSNormalization"
        | "LRN"
        | "MeanVarianceNormalization"
        | "LpNormalization" => (
            "its statistics are those of the encrypted value, and it divides by them",
            "train with BatchNormalization, whose statistics are constants at inference",
        ),
        "ReduceMax" | "ReduceMin" | "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceProd"
        | "LpPool" | "GlobalLpPool" => {
            ("this reduction of encrypted values is not available", "use ReduceMean, ReduceSum or AveragePool")
        }
        "ArgMax" | "ArgMin" | "TopK" | "NonMaxSuppression" | "LogSoftmax" => {
            ("it compares or normalises results", "end the model before it: the client does it after decryption")
        }
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor" | "Not" => (
            "encrypted values cannot be compared",
            "only comparisons of constants are folded; remove data-dependent branches",
        ),
        "If" | "Loop" | "Scan" | "SequenceMap" => (
            "control flow on encrypted values is impossible",
            "export with fixed sizes so that the exporter unrolls it",
        ),
        "LSTM" | "GRU" | "RNN" => {
            ("recurrent cells are not supported", "use convolutions, or unroll the cell into Gemm and activations")
        }
        "ConvTranspose" => {
            ("transposed convolution is not supported", "use Conv followed by DepthToSpace (sub-pixel convolution)")
        }
        "Resize" | "Upsample" | "GridSample" | "AffineGrid" | "RoiAlign" | "MaxRoiPool" => {
            ("resampling is not supported", "resize the input before encryption, or use strided Conv and DepthToSpace")
        }
        "Einsum" => ("general contractions are not supported", "write it as MatMul, Transpose, Mul and ReduceSum"),
        "MaxUnpool" => ("it needs the indices of maxima", "use DepthToSpace"),
        "Attention" | "MultiHeadAttention" => (
            "attention multiplies encrypted matrices and normalises the result",
            "only products with constant matrices are supported",
        ),
        "GatherND" | "GatherElements" | "Scatter" | "ScatterND" | "ScatterElements" | "NonZero" | "OneHot"
        | "Where" | "Compress" | "Unique" => {
            ("it addresses elements by computed indices", "use Slice, Split, Concat or Gather with constant indices")
        }
        "SwiGLU" => ("it is not supported", "write it with supported operators"),
        _ if operator.starts_with("QLinear")
            || matches!(
                operator,
                "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" | "ConvInteger" | "MatMulInteger"
            ) =>
        {
            ("quantised arithmetic is not supported", "export the floating-point model")
        }
        _ => (
            "this operator is not supported",
            "express it with the operators listed in the documentation, or compute it outside the encrypted model",
        ),
    }
}
