"""Several prompts in one result, and objects of a video."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount.errors import InputError
from lensmount_vision.results.kinds import Masks, PromptedMasks, VideoMasks, from_dict

SIZE = (6, 8)
DENSE = np.random.default_rng(0).random((4, *SIZE)) > 0.5


def made(kind=PromptedMasks, **more):
    return kind(masks=Masks.from_dense(DENSE), scores=[0.1, 0.9, 0.8, 0.2], image_size=SIZE, **more)


def test_a_single_prompt():
    result = made()
    assert result.dense().shape == (4, *SIZE)
    assert np.array_equal(result.best.dense(), DENSE[[1]])
    assert result.by_prompt() == [result]


def test_several_prompts():
    result = made(prompt_id=[0, 0, 1, 1])
    assert np.array_equal(result.dense(), DENSE.reshape(2, 2, *SIZE))
    assert np.array_equal(result.best.dense(), DENSE[[1, 2]][:, None])
    first, second = result.by_prompt()
    assert np.array_equal(second.dense(), DENSE[2:])
    assert first.prompt_id is None
    with pytest.raises(InputError, match="different numbers"):
        result[:3].dense()
    back = from_dict(result.to_dict())
    assert back == result
    with pytest.raises(InputError, match="prompt_id"):
        made(prompt_id=[0, 1])
    with pytest.raises(InputError, match="prompt_id"):
        made(prompt_id=[0.5, 1, 2, 3])


def test_objects_of_a_video():
    result = made(VideoMasks, object_ids=[3, 1, 7, 9], frame=12)
    assert result[result.object_ids == 7].object_ids.tolist() == [7]
    back = from_dict(result.to_dict())
    assert isinstance(back, VideoMasks)
    assert back == result
    with pytest.raises(InputError, match="object_ids"):
        made(VideoMasks, object_ids=[1, 2])
    empty = VideoMasks(object_ids=[], masks=Masks.empty(SIZE), scores=[], image_size=SIZE)
    assert from_dict(empty.to_dict()) == empty


def test_colours_follow_the_object():
    picture = np.full((*SIZE, 3), 100, np.uint8)
    both = made(VideoMasks, object_ids=[3, 1, 7, 9])
    drawn = both[[2]].draw(picture, labels=False)
    alone = made(VideoMasks, object_ids=[7, 2, 3, 4])[[0]]
    assert {tuple(c) for c in drawn[DENSE[2]]} & {tuple(c) for c in alone.draw(picture, labels=False)[DENSE[0]]}


def test_masks_as_an_array():
    masks = Masks.from_dense(DENSE)
    assert masks.shape == DENSE.shape
    assert np.array_equal(np.asarray(masks), DENSE)
    assert np.asarray(masks, dtype=np.uint8).dtype == np.uint8
