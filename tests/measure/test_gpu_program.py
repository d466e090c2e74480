"""Counting the kernels of a compiled program (measure/gpu_program.py)."""

from measure.gpu_program import kernels

PROGRAM = """HloModule step

%fused (p: f32[8]) -> f32[8] {
  ROOT %inside = f32[8]{0} negate(%p)
}

ENTRY %main (image: bf16[2,4,4,8], kernel: bf16[8,1,1,8]) -> (bf16[2,4,4,8]) {
  %image = bf16[2,4,4,8]{3,2,1,0} parameter(0)
  %kernel = bf16[8,1,1,8]{3,2,1,0} parameter(1)
  %conv.1 = (bf16[2,4,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%image, %kernel), \
custom_call_target="__cudnn$convForward"
  %map = bf16[2,4,4,8]{3,2,1,0} get-tuple-element(%conv.1), index=0
  %loop_add_fusion.7 = bf16[2,4,4,8]{3,2,1,0} fusion(%map, /*index=1*/%image), \
kind=kLoop, calls=%fused
  %loop_slice_fusion = f32[2,1,1,8]{3,2,1,0} fusion(%map), kind=kLoop, calls=%fused
  ROOT %out = (bf16[2,4,4,8]{3,2,1,0}) tuple(%loop_add_fusion.7)
}
"""


def test_kernels_of_a_program():
    found = kernels(PROGRAM)
    image, kernel, rows = 2 * 4 * 4 * 8 * 2, 8 * 8 * 2, 2 * 8 * 4
    assert [(k.kind, k.moved) for k in found] == [
        ("cudnn$convForward", 2 * image + kernel),
        ("loop_add_fusion", 3 * image),
        ("loop_slice_fusion", 2 * rows),
    ]
    assert found[1].operands == ["bf16[2,4,4,8]", "bf16[2,4,4,8]"]
