from ride_mm.engine.resume_check import numbered_checkpoints, step_of


def test_numbers(tmp_path):
    for name in (
        'epoch_2.pth',
        'epoch_10.pth',
        'epoch_x.pth',
        'best_acc_epoch_3.pth',
        '.epoch_11.pth.0.ride_mm_tmp',
        'iter_4.pth',
        'epoch_12.pth.bak',
    ):
        (tmp_path / name).touch()
    found = numbered_checkpoints(str(tmp_path), 'epoch_{}.pth')
    assert found == [(10, str(tmp_path / 'epoch_10.pth')), (2, str(tmp_path / 'epoch_2.pth'))]
    assert numbered_checkpoints(str(tmp_path / 'none'), 'epoch_{}.pth') == []
    assert step_of('/a/iter_0012.pth', 'iter_{:04d}.pth') == 12
