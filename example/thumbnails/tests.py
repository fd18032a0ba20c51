"""What views and worker do, without processes and without a browser: ``manage.py test``."""

from __future__ import annotations

import io
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponseBase
from django.test import TestCase, override_settings
from django.utils import timezone
from PIL import Image
from typing_extensions import override

from channels_sqlite import Channel
from thumbnails import work
from thumbnails.forms import MAX_UPLOAD_BYTES
from thumbnails.messages import JobProgress, MakeThumbnails, all_jobs, thumbnails_to_make
from thumbnails.models import INTERRUPTED_AFTER_S, Job, JobChangedError

# Channels' own layer in place of ours: views and worker work over any, and these tests need nothing cleaned up.
IN_MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}

listener: Channel[JobProgress] = Channel("listener")


def picture(width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    """Return a PNG of one colour."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, format="PNG", **options)
    return file.getvalue()


class JobTests(TestCase):
    """From an upload to its thumbnails."""

    @override
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        # Here rather than above the class, so that each test has layers of its own.
        own = override_settings(MEDIA_ROOT=self.folder, CHANNEL_LAYERS={"default": IN_MEMORY, "work": IN_MEMORY})
        own.enable()
        self.addCleanup(own.disable)

    def upload(self, content: bytes, *, commit: bool = True) -> HttpResponseBase:
        with self.captureOnCommitCallbacks(execute=commit):
            return self.client.post("/thumbnails/", {"picture": SimpleUploadedFile("a.png", content)})

    def next_message(self) -> MakeThumbnails:
        return thumbnails_to_make.receive(timeout=0)

    def assert_no_message(self) -> None:
        with self.assertRaises(TimeoutError):
            self.next_message()

    def uploaded_job(self, width: int = 400, height: int = 200) -> Job:
        self.upload(picture(width, height))
        return Job.objects.get()

    def let_time_pass(self, job: Job) -> None:
        long_ago = timezone.now() - timedelta(seconds=INTERRUPTED_AFTER_S + 1)
        Job.objects.filter(pk=job.pk).update(changed_at=long_ago)

    def test_upload_is_handed_over_on_commit(self) -> None:
        all_jobs.add("listener")
        response = self.upload(picture(400, 200))
        job = Job.objects.get()
        self.assertRedirects(response, f"/thumbnails/{job.pk}/")
        self.assertEqual(self.next_message(), {"type": "thumbnails.make", "job": job.pk, "revision": 1})
        self.assertEqual(listener.receive(timeout=0)["job"]["state"], "waiting")

    def test_nothing_is_sent_before_the_commit(self) -> None:
        self.upload(picture(400, 200), commit=False)
        self.assertEqual(Job.objects.count(), 1)
        self.assert_no_message()

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
        self.assert_no_message()

    def test_worker_makes_every_size_and_tells_each_step(self) -> None:
        job = self.uploaded_job(400, 200)
        all_jobs.add("listener")
        work.do(self.next_message())
        job.refresh_from_db()
        self.assertEqual(job.state, "done")
        self.assertEqual([(one["width"], one["height"]) for one in job.thumbnails], [(320, 160), (160, 80), (80, 40)])
        for thumbnail in job.thumbnails:
            answer = self.client.get(f"/thumbnails/{job.pk}/{thumbnail['size']}.webp")
            self.assertEqual(len(answer.content), thumbnail["bytes"])
            self.assertEqual(Image.open(io.BytesIO(answer.content)).size, (thumbnail["width"], thumbnail["height"]))
        told = [listener.receive(timeout=0)["job"] for _ in range(5)]
        self.assertEqual([len(one["thumbnails"]) for one in told], [0, 1, 2, 3, 3])
        self.assertEqual([one["revision"] for one in told], [2, 3, 4, 5, 6])
        self.assertEqual(told[-1]["state"], "done")

    def test_pictures_from_phones_are_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter
        self.upload(picture(400, 200, exif=exif))
        work.do(self.next_message())
        job = Job.objects.get()
        self.assertEqual((job.width, job.height), (200, 400))
        self.assertEqual((job.thumbnails[0]["width"], job.thumbnails[0]["height"]), (160, 320))

    def test_damaged_picture_fails_with_a_reason(self) -> None:
        self.upload(picture(400, 200)[:60])
        work.do(self.next_message())
        job = Job.objects.get()
        self.assertEqual(job.state, "failed")
        self.assertIn("damaged", job.error)

    def test_message_that_comes_twice_is_done_once(self) -> None:
        self.uploaded_job()
        message = self.next_message()
        work.do(message)
        before = Job.objects.values().get()
        work.do(message)
        self.assertEqual(Job.objects.values().get(), before)

    def test_job_without_progress_may_be_run_again(self) -> None:
        job = self.uploaded_job()
        self.next_message()
        job.started(worker_pid=1)
        address = f"/thumbnails/{job.pk}/again/"
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post(address)
        self.assert_no_message()

        self.let_time_pass(job)
        for _ in range(2):  # pressed in two tabs
            with self.captureOnCommitCallbacks(execute=True):
                self.client.post(address)
        work.do(self.next_message())
        self.assertEqual(Job.objects.get().state, "done")
        self.assert_no_message()
        # The first worker lives after all: it can do no harm.
        with self.assertRaises(JobChangedError):
            job.made({"size": 80, "width": 1, "height": 1, "bytes": 1})

    def test_only_thumbnails_are_sent(self) -> None:
        job = self.uploaded_job(400, 200)
        for name in ("320.webp", "640.webp", "1.webp", "picture"):
            self.assertEqual(self.client.get(f"/thumbnails/{job.pk}/{name}").status_code, 404, name)
