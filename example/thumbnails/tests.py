"""What views and tasks do, without processes and without a browser: ``manage.py test``."""

from __future__ import annotations

import unittest

from django.conf import settings

if not settings.HAS_TASKS:
    raise unittest.SkipTest("thumbnails are tasks, which came with Django 6.0")

import io
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from unittest import mock

from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponseBase
from django.tasks import TaskResultStatus
from django.test import TestCase, override_settings
from django.utils import timezone
from PIL import Image
from typing_extensions import override

from channels_sqlite import Channel
from channels_sqlite.tasks import Progress, progress_of
from channels_sqlite.testing import IsolatedChannelLayersMixin, run_tasks
from thumbnails.forms import MAX_UPLOAD_BYTES
from thumbnails.messages import NewTask, TaskProgress, TaskStatus, new_tasks, news_of
from thumbnails.models import Job
from thumbnails.snapshots import job_state
from thumbnails.tasks import hand_over_forgotten, make_thumbnails

page: Channel[NewTask | TaskProgress | TaskStatus] = Channel("page")


def picture(width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    """Return a PNG of one colour."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, format="PNG", **options)
    return file.getvalue()


class JobTests(IsolatedChannelLayersMixin, TestCase):
    """From an upload to its thumbnails. Each test has messages and tasks of its own."""

    @override
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        own = override_settings(MEDIA_ROOT=self.folder)
        own.enable()
        self.addCleanup(own.disable)

    def upload(self, content: bytes, *, commit: bool = True) -> HttpResponseBase:
        with self.captureOnCommitCallbacks(execute=commit):
            return self.client.post("/thumbnails/", {"picture": SimpleUploadedFile("a.png", content)})

    def uploaded_job(self, content: bytes) -> Job:
        self.upload(content)
        return Job.objects.get()

    def retry(self, job: Job) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post(f"/thumbnails/{job.pk}/retry/")

    def assert_state(self, job: Job, state: str, error: str = "") -> None:
        job.refresh_from_db()
        found = job_state(job)
        self.assertEqual(found["state"], state)
        self.assertIn(error, found["error"])

    def test_upload_is_handed_over_on_commit(self) -> None:
        new_tasks.add("page")
        response = self.upload(picture(400, 200))
        job = Job.objects.get()
        self.assertRedirects(response, f"/thumbnails/{job.pk}/")
        self.assertEqual(page.receive(timeout=0), {"type": "task.new", "job": job.pk})
        self.assertEqual(make_thumbnails.get_result(job.task).args, [job.pk])
        self.assert_state(job, "waiting")

    def test_nothing_is_handed_over_before_the_commit(self) -> None:
        self.upload(picture(400, 200), commit=False)
        self.assertEqual(Job.objects.get().task, "")
        self.assertEqual(run_tasks(), [])

    def test_bad_uploads_leave_nothing_behind(self) -> None:
        bad = {
            "not a picture": b"not a picture",
            "This file is empty": b"",
            "too large": bytes(MAX_UPLOAD_BYTES + 1),
            "too many pixels": picture(8000, 7000, "1"),
        }
        for text, content in bad.items():
            with self.subTest(text):
                self.assertContains(self.upload(content), text)
        self.assertContains(self.client.post("/thumbnails/"), "Choose a picture first")
        self.assertFalse(Job.objects.exists())
        self.assertEqual(list(Path(self.folder).iterdir()), [])
        self.assertEqual(run_tasks(), [])

    def test_task_makes_every_size_and_tells_each_step(self) -> None:
        job = self.uploaded_job(picture(400, 200))
        news_of(job.task).add("page")
        [result] = run_tasks()
        self.assertEqual(result.return_value, 3)
        self.assert_state(job, "done")
        self.assertEqual([(one["width"], one["height"]) for one in job.thumbnails], [(320, 160), (160, 80), (80, 40)])
        for thumbnail in job.thumbnails:
            answer = self.client.get(f"/thumbnails/{job.pk}/{thumbnail['size']}.webp")
            self.assertEqual(len(answer.content), thumbnail["bytes"])
            self.assertEqual(Image.open(io.BytesIO(answer.content)).size, (thumbnail["width"], thumbnail["height"]))
        told = [page.receive(timeout=0) for _ in range(6)]
        self.assertEqual([one["done"] for one in told if one["type"] == "task.progress"], [0, 1, 2, 3])
        self.assertEqual([one["status"] for one in told if one["type"] == "task.status"], ["RUNNING", "SUCCESSFUL"])

    def test_pictures_from_phones_are_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        job = self.uploaded_job(picture(400, 200, exif=exif))
        run_tasks()
        self.assert_state(job, "done")
        self.assertEqual((job.width, job.height), (200, 400))
        self.assertEqual((job.thumbnails[0]["width"], job.thumbnails[0]["height"]), (160, 320))

    def test_damaged_picture_fails_with_a_reason_and_can_be_tried_again(self) -> None:
        content = picture(400, 200)
        job = self.uploaded_job(content[:60])
        [result] = run_tasks()
        self.assertEqual((result.status, result.attempts), (TaskResultStatus.FAILED, 1))
        self.assert_state(job, "failed", "damaged")

        Path(job.picture.path).write_bytes(content)
        self.retry(job)
        self.assert_state(job, "waiting")
        run_tasks()
        self.assert_state(job, "done")
        self.retry(job)  # there is nothing to try
        self.assertEqual(run_tasks(), [])

    def test_what_nobody_foresaw_is_shown_by_its_name(self) -> None:
        job = self.uploaded_job(picture(400, 200))
        with mock.patch("thumbnails.tasks.save_thumbnail", side_effect=RuntimeError("of this test")):
            run_tasks()
        self.assert_state(job, "failed", "Something went wrong (RuntimeError).")

    def test_task_that_starts_again_goes_on_behind_what_is_there(self) -> None:
        job = self.uploaded_job(picture(400, 200))
        job.add({"size": 320, "width": 1, "height": 1, "bytes": 1})  # by the start that was cut short
        run_tasks()
        self.assert_state(job, "done")
        self.assertEqual([(one["size"], one["width"]) for one in job.thumbnails], [(320, 1), (160, 160), (80, 80)])
        result = make_thumbnails.get_result(job.task)
        progress = progress_of(result)
        assert isinstance(progress, Progress)
        self.assertEqual((progress.done, progress.total), (3, 3))
        # Done twice, it is done once.
        before = Job.objects.values("thumbnails").get()
        make_thumbnails.enqueue(job.pk)
        run_tasks()
        self.assertEqual(Job.objects.values("thumbnails").get(), before)

    def test_a_button_pressed_in_two_tabs_enqueues_one_task(self) -> None:
        job = self.uploaded_job(picture(400, 200)[:60])
        run_tasks()
        for _ in range(2):
            self.retry(job)
        self.assertEqual(len(run_tasks()), 1)

    def test_job_that_a_killed_server_has_not_handed_over_is_found(self) -> None:
        self.upload(picture(400, 200), commit=False)
        job = Job.objects.get()
        hand_over_forgotten.enqueue()
        with self.captureOnCommitCallbacks(execute=True):
            run_tasks()
        self.assert_state(job, "waiting")
        self.assertEqual(job.task, "", "it may be about to be handed over")

        Job.objects.update(created_at=timezone.now() - timedelta(minutes=2))
        hand_over_forgotten.enqueue()
        with self.captureOnCommitCallbacks(execute=True):
            run_tasks()
        run_tasks()
        self.assert_state(job, "done")

    def test_only_thumbnails_are_sent(self) -> None:
        job = self.uploaded_job(picture(400, 200))
        for name in ("320.webp", "640.webp", "1.webp", "picture"):
            self.assertEqual(self.client.get(f"/thumbnails/{job.pk}/{name}").status_code, 404, name)
