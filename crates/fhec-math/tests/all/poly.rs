//! Buffers and polynomials.

use std::sync::Arc;

use crate::common::{moduli, words};
use fhec_math::{AlignedVec, Coeff, Eval, MathError, NttTable, Poly};
use zeroize::Zeroize;

#[test]
fn buffers_are_aligned_and_zero() {
    for len in [0, 1, 7, 1 << 10, 1 << 18, (1 << 18) + 1] {
        let buffer = AlignedVec::zeroed(len);
        assert_eq!(buffer.len(), len);
        assert!(buffer.as_ptr().addr().is_multiple_of(64));
        assert!(buffer.iter().all(|&x| x == 0));
    }
}

#[test]
fn buffers_copy_truncate_and_wipe() {
    let mut a = AlignedVec::from(&[1, 2, 3, 4][..]);
    let b = a.clone();
    assert_eq!(a, b);
    a.truncate(2);
    assert_eq!(*a, [1, 2]);
    a.truncate(9);
    assert_eq!(a.len(), 2);
    assert_ne!(a, b);
    a.zeroize();
    assert_eq!(*a, [0, 0]);
    assert_eq!(*b, [1, 2, 3, 4]);
    assert_eq!(format!("{b:?}"), "AlignedVec { len: 4, .. }");
}

#[test]
fn transforms_go_limb_by_limb_and_back() {
    let log_n = 10;
    let n = 1 << log_n;
    let chain = moduli(45, log_n, 4);
    let tables: Vec<Arc<NttTable>> = chain.iter().map(|m| NttTable::get(m.value(), log_n).unwrap()).collect();
    let mut poly = Poly::<Coeff>::zero(n, 3);
    for (limb, m) in poly.iter_mut().zip(&chain) {
        limb.copy_from_slice(&words(m.value(), n, m.value()));
    }
    let original = poly.clone();
    let values: Poly<Eval> = poly.to_eval(&tables);
    for (i, table) in tables[..3].iter().enumerate() {
        let mut limb = original.limb(i).to_vec();
        table.forward(&mut limb);
        assert_eq!(values.limb(i), limb);
    }
    assert_eq!(values.clone().to_coeff(&tables), original);
    let mut dropped = values.clone();
    dropped.drop_limbs_to(2);
    assert_eq!((dropped.limbs(), dropped.n()), (2, n));
    assert_eq!(dropped, values.prefix(2));
    assert_eq!(dropped.limb(1), values.limb(1));
    dropped.drop_limbs_to(5);
    assert_eq!(dropped.limbs(), 2);
    assert_eq!(format!("{dropped:?}"), "Poly<Eval>(2 limbs of 1024)");
}

#[test]
fn tables_are_shared() {
    let p = moduli(45, 11, 1)[0].value();
    let a = NttTable::get(p, 11).unwrap();
    assert!(Arc::ptr_eq(&a, &NttTable::get(p, 11).unwrap()));
    assert!(!Arc::ptr_eq(&a, &NttTable::get(p, 10).unwrap()));
}

#[test]
fn bad_shapes_are_refused() {
    let error = Poly::<Coeff>::from_data(16, AlignedVec::zeroed(17)).unwrap_err();
    assert_eq!(error, MathError::BadLength { len: 17, n: 16 });
    assert!(Poly::<Coeff>::from_data(0, AlignedVec::zeroed(0)).is_err());
    assert_eq!(Poly::<Coeff>::from_data(16, AlignedVec::zeroed(32)).unwrap().limbs(), 2);
}

#[test]
fn secret_polynomials_are_wiped() {
    let mut poly = fhec_math::Zeroizing::new(Poly::<Coeff>::zero(16, 3));
    poly.data_mut().fill(5);
    poly.drop_limbs_to(1);
    poly.zeroize();
    assert!(poly.data().iter().all(|&x| x == 0));
    assert_eq!(poly.limbs(), 1);
}
