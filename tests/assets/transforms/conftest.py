import pytest

pytest.register_assert_rewrite("tests.assets.transforms.casebook")
